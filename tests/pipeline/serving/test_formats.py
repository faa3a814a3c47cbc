"""Bytes of an answer: one header, the right counts, and pieces that concatenate to one file."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile

from pipeline.serving.formats import (
    UNKNOWN_SIZE,
    AudioLayout,
    content_type,
    pcm_bytes,
    stream_header,
    wav_header,
    whole_file,
)

STEREO = AudioLayout(sample_rate=44_100, num_channels=2)
MONO = AudioLayout(sample_rate=16_000, num_channels=1)


def wave(num_channels: int, num_samples: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.9, 0.9, (num_channels, num_samples))


def test_pcm_interleaves_little_endian() -> None:
    waveform = np.array([[0.0, 1.0], [-1.0, 0.5]], dtype=np.float32)
    assert struct.unpack("<4h", pcm_bytes(waveform)) == (0, -32767, 32767, 16384)


def test_pcm_clips_instead_of_wrapping() -> None:
    waveform = np.array([[3.0, -3.0]], dtype=np.float32)
    assert struct.unpack("<2h", pcm_bytes(waveform)) == (32767, -32767)


@pytest.mark.parametrize("layout", [MONO, STEREO])
@pytest.mark.parametrize("audio_format", ["wav", "flac"])
def test_a_whole_file_reads_back(layout: AudioLayout, audio_format: str) -> None:
    waveform = wave(layout.num_channels, 1000)
    payload = whole_file(audio_format, layout, pcm_bytes(waveform))  # type: ignore[arg-type]
    read, rate = soundfile.read(io.BytesIO(payload), always_2d=True)
    assert rate == layout.sample_rate
    assert read.shape == (1000, layout.num_channels)
    # Half a step of 16 bits, and soundfile divides by 32768 where we multiply by 32767.
    np.testing.assert_allclose(read.T, waveform, atol=2 / 32768)


def test_true_sizes_in_a_whole_file() -> None:
    payload = whole_file("wav", STEREO, pcm_bytes(wave(2, 10)))
    riff_size, data_size = (
        struct.unpack_from("<I", payload, 4)[0],
        struct.unpack_from("<I", payload, 40)[0],
    )
    assert (riff_size, data_size) == (len(payload) - 8, 40)
    assert len(payload) == 44 + 10 * 2 * 2


def test_a_stream_is_one_header_and_the_samples_of_the_whole_file() -> None:
    chunks = [pcm_bytes(wave(2, n)) for n in (7, 1, 30)]
    stream = stream_header("wav", STEREO) + b"".join(chunks)
    assert stream.count(b"RIFF") == 1
    assert stream[44:] == whole_file("wav", STEREO, b"".join(chunks))[44:]
    sizes = struct.unpack_from("<I", stream, 4), struct.unpack_from("<I", stream, 40)
    assert sizes == ((UNKNOWN_SIZE,), (UNKNOWN_SIZE,))


def test_a_streamed_header_is_understood_by_a_reader() -> None:
    stream = stream_header("wav", MONO) + pcm_bytes(wave(1, 50))
    read, rate = soundfile.read(io.BytesIO(stream))
    assert (rate, len(read)) == (16_000, 50)


def test_pcm_has_no_header_and_says_what_it_is() -> None:
    assert stream_header("pcm", STEREO) == b""
    assert content_type("pcm", STEREO) == "audio/pcm; rate=44100; channels=2"
    assert STEREO.headers() == {"X-Sample-Rate": "44100", "X-Channels": "2"}


def test_flac_cannot_be_streamed() -> None:
    with pytest.raises(ValueError, match="flac cannot be streamed; use wav or pcm"):
        stream_header("flac", MONO)


def test_a_file_longer_than_wav_can_say_is_refused() -> None:
    with pytest.raises(ValueError, match="a WAV file holds"):
        wav_header(MONO, 2**32)
