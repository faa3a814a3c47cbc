from __future__ import annotations

import contextlib
import io

import av
import numpy as np
import pytest

from pipeline.audio.files import AudioError, open_audio, read_audio
from tests.factories.audio_files import ffmpeg_bytes, tone, video_bytes

RATE = 16_000


def adts(num_channels: int, rate: int = RATE, seconds: float = 1.0) -> bytes:
    return ffmpeg_bytes(tone(int(rate * seconds), num_channels, rate), rate, "adts")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((1, RATE), (2, RATE)),
        ((2, RATE), (1, RATE)),
        ((1, RATE), (1, 24_000)),
        ((2, 24_000), (1, RATE)),
        ((6, 48_000), (2, 48_000)),
        ((2, 48_000), (6, 48_000)),
        ((6, 48_000), (1, RATE)),
    ],
    ids=str,
)
def test_frames_of_another_format_are_brought_to_that_of_the_first(tmp_path, first, second):
    path = tmp_path / "x.aac"
    path.write_bytes(adts(*first) + adts(*second))
    audio = read_audio(str(path))
    assert (audio.waveform.shape[0], audio.sample_rate) == first
    assert abs(audio.waveform.shape[1] - 2 * first[1]) < 0.4 * first[1]
    (warning,) = audio.warnings
    assert warning.startswith(f"format_change: {first[0]} channels")
    assert f"to {second[0]} channels" in warning
    assert f"{second[1]} Hz" in warning
    tail = audio.waveform[0, -first[1] // 2 : -first[1] // 10]
    if 6 not in (first[0], second[0]):  # surround is folded down with weights of its own
        assert 0.25 < np.abs(tail).max() < 0.45, "neither lost nor made louder"


def test_a_file_that_keeps_changing_is_read_to_its_end_and_named_a_few_times(tmp_path):
    path = tmp_path / "x.aac"
    path.write_bytes(b"".join(adts(1 + n % 2, seconds=0.2) for n in range(12)))
    audio = read_audio(str(path))
    assert audio.waveform.shape[0] == 1
    assert audio.waveform.shape[1] > 12 * 0.2 * RATE
    assert len(audio.warnings) == 4


@pytest.mark.parametrize(
    ("container", "old", "new", "name"),
    [
        ("mp4", (b"mp4a", b"esds"), (b"ac-4", b"zzzz"), "ac-4"),
        ("mp4", (b"mp4a", b"esds"), (b"drms", b"zzzz"), "drms"),
        ("matroska", (b"A_AAC",), (b"A_XYZ",), "A_XYZ"),
    ],
)
def test_an_unknown_codec_is_named(tmp_path, container, old, new, name):
    payload = ffmpeg_bytes(tone(RATE), RATE, container)
    for before, after in zip(old, new, strict=True):
        assert before in payload
        payload = payload.replace(before, after)
    (tmp_path / "x.m4a").write_bytes(payload)
    with pytest.raises(AudioError, match=f"unreadable: the codec '{name}' is not supported"):
        read_audio(str(tmp_path / "x.m4a"))


def test_video_without_sound_is_refused_and_with_sound_is_heard(tmp_path):
    (tmp_path / "dumb.mkv").write_bytes(video_bytes(with_audio=False))
    with pytest.raises(AudioError, match="unreadable: the file holds no audio stream"):
        read_audio(str(tmp_path / "dumb.mkv"))
    (tmp_path / "x.mkv").write_bytes(video_bytes(with_audio=True))
    assert abs(read_audio(str(tmp_path / "x.mkv")).waveform.shape[1] - RATE) < 2_048


@pytest.mark.parametrize("container", ["matroska", "mp4"])
def test_a_track_without_a_frame_is_empty(tmp_path, container):
    sink = io.BytesIO()
    with av.open(sink, "w", format=container) as file:
        file.add_stream("aac", rate=RATE, layout="mono")
        file.start_encoding()
    (tmp_path / "x.m4a").write_bytes(sink.getvalue())
    with pytest.raises(AudioError, match=r"empty_audio|unreadable"):
        read_audio(str(tmp_path / "x.m4a"))


def test_aac_after_a_tag_is_aac(tmp_path):
    payload = adts(1)
    tag = b"ID3\x04\0\0" + bytes([0, 0, 1, 4]) + bytes(132)
    (tmp_path / "x.aac").write_bytes(tag + payload)
    (tmp_path / "y.aac").write_bytes(payload)
    tagged, plain = (read_audio(str(tmp_path / name)).waveform for name in ("x.aac", "y.aac"))
    np.testing.assert_array_equal(tagged, plain)


def test_a_cut_file_is_kept_as_far_as_it_goes_or_refused(tmp_path):
    payload = ffmpeg_bytes(tone(5 * RATE), RATE, "adts")
    for share in (0.02, 0.3, 0.9):
        path = tmp_path / f"{share}.aac"
        path.write_bytes(payload[: int(share * len(payload))])
        with open_audio(str(path)) as stream:
            count = sum(block.shape[1] for block in stream.blocks())
        assert 0 < count < 5 * RATE


@pytest.mark.parametrize("seed", range(40))
def test_damaged_files_are_refused_or_read_and_nothing_else(tmp_path, seed):
    rng = np.random.default_rng(seed)
    container, codec = [("mp4", "aac"), ("adts", "aac"), ("webm", "libopus"), ("matroska", "ac3")][
        seed % 4
    ]
    payload = bytearray(ffmpeg_bytes(tone(48_000, 1, 48_000), 48_000, container, codec))
    for _ in range(8):
        at = int(rng.integers(16, len(payload) - 64))
        payload[at : at + 8] = rng.bytes(8)
    (tmp_path / "x").write_bytes(payload)
    with contextlib.suppress(AudioError):
        assert read_audio(str(tmp_path / "x")).waveform.ndim == 2
