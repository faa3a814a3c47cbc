"""PCM, media types and the WAV header."""

from __future__ import annotations

import io
import struct
import wave

import numpy as np
import pytest

from pipeline.serving.formats import (
    UNKNOWN_SIZE,
    AudioLayout,
    content_type,
    pcm_bytes,
    wav_header,
)
from pipeline.serving.provenance import provenance_of

STEREO = AudioLayout(sample_rate=44_100, num_channels=2)
MONO = AudioLayout(sample_rate=16_000, num_channels=1)


def test_pcm_interleaves_little_endian() -> None:
    waveform = np.array([[0.0, 1.0], [-1.0, 0.5]], dtype=np.float32)
    assert struct.unpack("<4h", pcm_bytes(waveform)) == (0, -32767, 32767, 16384)


def test_pcm_clips_instead_of_wrapping() -> None:
    waveform = np.array([[3.0, -3.0]], dtype=np.float32)
    assert struct.unpack("<2h", pcm_bytes(waveform)) == (32767, -32767)


def test_pcm_has_no_header_and_says_what_it_is() -> None:
    assert content_type("pcm", STEREO) == "audio/pcm; rate=44100; channels=2"
    assert content_type("opus", STEREO) == "audio/ogg; codecs=opus"
    assert STEREO.headers() == {"X-Sample-Rate": "44100", "X-Channels": "2"}


def test_a_wav_header_says_the_size_or_that_it_is_unknown() -> None:
    assert struct.unpack_from("<I", wav_header(STEREO, 40), 4) == (76,)
    assert struct.unpack_from("<I", wav_header(STEREO, 40), 40) == (40,)
    assert struct.unpack_from("<I", wav_header(STEREO), 40) == (UNKNOWN_SIZE,)


def test_a_wav_header_may_name_the_origin_before_the_audio() -> None:
    provenance = provenance_of("d" * 64, 5)
    header = wav_header(MONO, 4, provenance)
    assert len(header) == len(wav_header(MONO, provenance=provenance)) > 44
    assert struct.unpack_from("<I", header, 4) == (len(header) + 4 - 8,)
    assert header[-8:] == b"data" + struct.pack("<I", 4)
    assert provenance.comment.encode() in header
    with wave.open(io.BytesIO(header + b"\1\0\2\0")) as file:
        assert file.readframes(9) == b"\1\0\2\0"


def test_a_file_longer_than_wav_can_say_is_refused() -> None:
    with pytest.raises(ValueError, match="a WAV file holds"):
        wav_header(MONO, 2**32)
