from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.schema import ClipRow
from pipeline.data.segments import SegmentSettings, cut, segment_row

RATE = 8_000
LIMITS = {"max_s": 3.0, "min_s": 0.5}


def noise(duration_s, level=0.1, seed=0):
    samples = np.random.default_rng(seed).standard_normal((1, round(duration_s * RATE)))
    return (level * samples).astype(np.float32)


def talk(*pauses_s, duration_s=10.0, pause_s=0.4):
    """Noise with pauses of -60 dB in the middle of which lie the times given."""
    waveform = noise(duration_s)
    for middle in pauses_s:
        waveform[
            :, round((middle - pause_s / 2) * RATE) : round((middle + pause_s / 2) * RATE)
        ] *= 1e-3
    return waveform


def segments(waveform, block=1_000, **limits):
    blocks = (waveform[:, i : i + block] for i in range(0, waveform.shape[1], block))
    return list(cut(blocks, RATE, **(LIMITS | limits)))


def ends_s(found):
    return [round(segment.end / RATE, 2) for segment in found]


def test_cuts_lie_in_the_pauses():
    found = segments(talk(1.0, 2.2, 5.0, 7.0, 9.1))
    assert ends_s(found)[:3] == pytest.approx([2.2, 5.0, 7.0], abs=0.11)
    assert all(segment.is_at_pause for segment in found)


@pytest.mark.parametrize("duration_s", [0.1, 3.0, 3.001, 3.4, 3.5, 6.7, 20.0])
def test_segments_tile_the_recording_within_the_limits(duration_s):
    waveform = noise(duration_s)
    found = segments(waveform)
    assert np.array_equal(np.concatenate([part.waveform for part in found], axis=1), waveform)
    assert [part.start for part in found] == [0, *[part.end for part in found[:-1]]]
    lengths = [part.waveform.shape[1] / RATE for part in found]
    assert max(lengths) <= 3.0
    assert len(found) == 1 or min(lengths) >= 0.5


def test_the_size_of_blocks_changes_nothing():
    waveform = talk(2.0, 4.4, 8.0)
    whole = [(part.start, part.end, part.is_at_pause) for part in segments(waveform)]
    for block in (37, 8_000, 10**6):
        found = segments(waveform, block)
        assert [(part.start, part.end, part.is_at_pause) for part in found] == whole


def test_a_cut_amid_sound_is_noted():
    assert [part.is_at_pause for part in segments(noise(7.0))] == [False, False, True]


def test_samples_that_are_not_finite_do_not_stop_the_cutting():
    waveform = talk(2.0, 4.4)
    waveform[:, 100:200] = np.nan
    assert ends_s(segments(waveform))[0] == pytest.approx(2.0, abs=0.11)


def test_cuts_are_whole_milliseconds_of_the_file():
    for offset in (0, 12_345):
        for part in segments(talk(2.0, 4.4, 8.0), offset=offset)[:-1]:
            time_s = (offset + part.end) / RATE
            assert abs(time_s - round(time_s, 3)) < 0.5 / RATE + 1e-9


def test_memory_holds_a_segment_and_not_the_recording():
    held = []

    def blocks():
        for seed in range(2_000):
            held.append(1)
            yield noise(0.1, seed=seed % 7)

    for number, part in enumerate(cut(blocks(), RATE, **LIMITS)):
        assert len(held) * 0.1 <= part.end / RATE + LIMITS["max_s"] + LIMITS["min_s"], number


def test_a_segment_keeps_what_is_known_of_its_recording():
    clip = ClipRow(
        clip_id="c/talk",
        corpus="c",
        uri="talk.flac",
        modality="speech",
        speaker="c/ann",
        declared_duration_s=100.0,
    )
    row = segment_row(clip, 12.5, 40.25)
    assert row.clip_id == "c/talk@12.500-40.250"
    assert (row.start_s, row.end_s, row.declared_duration_s) == (12.5, 40.25, None)
    assert (row.speaker, row.uri) == ("c/ann", "talk.flac")


def test_each_modality_has_a_limit():
    settings = SegmentSettings(music_s=90)
    assert [settings.limit_s(name) for name in ("speech", "sound", "music")] == [30, 30, 90]
