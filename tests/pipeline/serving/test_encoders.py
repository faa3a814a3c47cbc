"""Every format, streamed and whole, read back by FFmpeg: duration, pitch and level."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import get_args

import av
import numpy as np
import pytest

from pipeline.serving.encoders import AudioEncoder
from pipeline.serving.formats import UNKNOWN_SIZE, AudioLayout, Format, pcm_bytes

MONO = AudioLayout(16_000, 1)
STEREO = AudioLayout(44_100, 2)
SECONDS = 1.0
HZ = 440.0
FORMATS = get_args(Format)
FILES = [name for name in FORMATS if name != "pcm"]


def tone(layout: AudioLayout) -> np.ndarray:
    times = np.arange(int(SECONDS * layout.sample_rate)) / layout.sample_rate
    return np.stack([0.5 * np.sin(2 * np.pi * HZ * times)] * layout.num_channels)


def encoded(encoder: AudioEncoder, layout: AudioLayout, chunk_samples: int = 1280) -> list[bytes]:
    """What comes out after each chunk and at the end."""
    waveform = tone(layout)
    starts = range(0, waveform.shape[1], chunk_samples)
    parts = [encoder.encode(pcm_bytes(waveform[:, i : i + chunk_samples])) for i in starts]
    return [*parts, encoder.finish()]


def decoded(data: bytes) -> tuple[np.ndarray, int, float | None]:
    """Samples of the first channel, their rate, and the duration that the file states."""
    with av.open(io.BytesIO(data)) as file:
        rate = file.streams.audio[0].rate
        to_float = av.AudioResampler(format="fltp")
        frames = [part for frame in file.decode(audio=0) for part in to_float.resample(frame)]
        stated = None if file.duration is None else file.duration / av.time_base
    return np.concatenate([frame.to_ndarray()[0] for frame in frames]), rate, stated


def pitch_of(samples: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * rate / len(samples))


def slack_s(audio_format: str, layout: AudioLayout, *, is_whole: bool) -> float:
    """What a format may add: frames of delay and padding that its header cannot tell."""
    if audio_format == "aac":
        return 2.1 * 1024 / layout.sample_rate
    if audio_format == "mp3" and not is_whole:
        return (1105 + 1152) / layout.sample_rate
    return 0.001


@pytest.mark.parametrize("is_whole", [True, False])
@pytest.mark.parametrize("layout", [MONO, STEREO])
@pytest.mark.parametrize("audio_format", FILES)
def test_every_file_reads_back_with_its_duration(
    audio_format: Format, layout: AudioLayout, is_whole: bool
) -> None:
    encoder = AudioEncoder(audio_format, layout, is_whole=is_whole)
    samples, rate, stated = decoded(b"".join(encoded(encoder, layout)))
    # Opus is decoded at 48 kHz whatever it was made from.
    assert rate == (48_000 if audio_format == "opus" else encoder.layout.sample_rate)
    slack = slack_s(audio_format, layout, is_whole=is_whole)
    assert SECONDS <= len(samples) / rate <= SECONDS + slack
    if is_whole:
        # Ogg counts the pre-skip of Opus, 6.5 ms, into the duration that it states.
        assert stated == pytest.approx(SECONDS, abs=max(slack, 0.007))
    assert pitch_of(samples, rate) == pytest.approx(HZ, abs=2)
    assert np.abs(samples).max() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("audio_format", FORMATS)
def test_a_stream_begins_before_the_audio_ends_and_a_file_does_not(audio_format: Format) -> None:
    *parts, _ = encoded(AudioEncoder(audio_format, MONO), MONO)
    assert any(parts[:4])
    *parts, whole = encoded(AudioEncoder(audio_format, MONO, is_whole=True), MONO)
    assert not any(parts)
    assert whole


@pytest.mark.parametrize("audio_format", FORMATS)
def test_a_file_on_disk_is_the_whole_file_and_grows_with_the_audio(
    audio_format: Format, tmp_path: Path
) -> None:
    path, sizes, waveform = tmp_path / "tone", [], 4 * pcm_bytes(tone(MONO))
    collecting = AudioEncoder(audio_format, MONO, is_whole=True)
    with path.open("wb", buffering=0) as file:
        writing = AudioEncoder(audio_format, MONO, file=file)
        for start in range(0, len(waveform), 2 * 1280):
            chunk = waveform[start : start + 2 * 1280]
            assert collecting.encode(chunk) == writing.encode(chunk) == b""
            sizes.append(path.stat().st_size)
        assert writing.finish() == b""
    assert path.read_bytes() == collecting.finish()
    assert len(set(sizes)) > 3  # Ogg has a page for each second


@pytest.mark.parametrize("chunk_samples", [7, 1000, 100_000])
@pytest.mark.parametrize("audio_format", FORMATS)
def test_bytes_do_not_depend_on_how_the_audio_is_cut(
    audio_format: Format, chunk_samples: int
) -> None:
    expected = b"".join(encoded(AudioEncoder(audio_format, MONO), MONO))
    assert expected == b"".join(encoded(AudioEncoder(audio_format, MONO), MONO, chunk_samples))


@pytest.mark.parametrize("tempo", [0.25, 0.8, 1.5, 4.0])
def test_tempo_changes_the_duration_and_not_the_pitch(tempo: float) -> None:
    encoder = AudioEncoder("wav", MONO, tempo=tempo)
    samples, rate, _ = decoded(b"".join(encoded(encoder, MONO)))
    # atempo drops up to a window of 0.1 s at the end.
    assert len(samples) / rate == pytest.approx(SECONDS / tempo, abs=0.1)
    assert pitch_of(samples, rate) == pytest.approx(HZ, abs=5)


def test_pcm_is_converted_to_another_layout() -> None:
    encoder = AudioEncoder("pcm", STEREO, AudioLayout(24_000, 1))
    samples = np.frombuffer(b"".join(encoded(encoder, STEREO)), dtype="<i2")
    assert encoder.layout == AudioLayout(24_000, 1)
    assert len(samples) == 24_000
    assert pitch_of(samples / 32768, 24_000) == pytest.approx(HZ, abs=2)


@pytest.mark.parametrize(
    ("audio_format", "rate", "expected"),
    [("opus", 44_100, 48_000), ("opus", 16_000, 16_000), ("mp3", 48_001, 48_000)],
)
def test_a_rate_that_a_codec_lacks_becomes_the_next(
    audio_format: Format, rate: int, expected: int
) -> None:
    assert AudioEncoder(audio_format, AudioLayout(rate, 1)).layout.sample_rate == expected


def test_wav_and_pcm_keep_every_sample() -> None:
    expected = pcm_bytes(tone(STEREO))
    assert b"".join(encoded(AudioEncoder("pcm", STEREO), STEREO)) == expected
    stream = b"".join(encoded(AudioEncoder("wav", STEREO), STEREO))
    assert stream[44:] == expected
    assert struct.unpack_from("<I", stream, 40) == (UNKNOWN_SIZE,)
    whole = b"".join(encoded(AudioEncoder("wav", STEREO, is_whole=True), STEREO))
    assert whole[44:] == expected
    assert struct.unpack_from("<I", whole, 40) == (len(expected),)


@pytest.mark.parametrize("is_whole", [True, False])
@pytest.mark.parametrize("audio_format", FORMATS)
def test_an_answer_without_audio_is_an_empty_file(audio_format: Format, is_whole: bool) -> None:
    encoder = AudioEncoder(audio_format, MONO, is_whole=is_whole, tempo=2.0)
    assert encoder.encode(b"") + encoder.finish() is not None
