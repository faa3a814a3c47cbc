"""Integer time: rounding is stated, and conversions agree with each other."""

import pytest

from model.timebase import Timebase, num_blocks, resampled_length, round_half_up

PAPER = Timebase(sample_rate=44_100, hop_length=4096)


def test_frame_rate_follows_from_the_hop() -> None:
    assert PAPER.frame_rate == pytest.approx(10.7666, abs=1e-4)


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (1, 1), (4096, 1), (4097, 2)])
def test_frames_cover_samples(samples: int, frames: int) -> None:
    assert PAPER.num_frames(samples) == frames


def test_seconds_round_half_up_to_samples() -> None:
    assert Timebase(sample_rate=2, hop_length=1).samples_in(0.25) == 1
    assert round_half_up(2.5) == 3
    assert PAPER.frames_in(1.0) == 11
    assert PAPER.duration_s(44_100) == 1.0
    assert PAPER.frames_duration_s(10) == pytest.approx(40_960 / 44_100)


@pytest.mark.parametrize(("frames", "blocks"), [(0, 0), (1, 1), (8, 1), (9, 2)])
def test_blocks_cover_frames(frames: int, blocks: int) -> None:
    assert num_blocks(frames, 8) == blocks


def test_resampled_length_rounds_up() -> None:
    assert resampled_length(44_100, 44_100, 16_000) == 16_000
    assert resampled_length(1, 44_100, 16_000) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Timebase(0, 1), "sample_rate is 0"),
        (lambda: Timebase(1, 0), "hop_length is 0"),
        (lambda: PAPER.num_frames(-1), "num_samples is -1"),
        (lambda: PAPER.samples_in(float("nan")), "nan s"),
        (lambda: PAPER.samples_in(-1.0), r"-1\.0 s"),
        (lambda: num_blocks(1, 0), "frames_per_block is 0"),
    ],
)
def test_impossible_values_are_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
