"""Formats of an answer: names, media types, sample layout and the WAV header."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from pipeline.serving.provenance import Provenance

Format = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
"""Formats an answer may have; every one of them can be streamed."""

OPENAI_PCM_RATE = 24_000
"""Hz of raw PCM from the speech endpoint of OpenAI, which clients assume; one channel."""

UNKNOWN_SIZE = 0xFFFFFFFF
"""Size fields of a WAV header for a stream of unknown length; players then read to the end."""
_BYTES_PER_SAMPLE = 2
_FULL_SCALE = 32767.0
_MEDIA_TYPES: dict[str, str] = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg; codecs=opus",  # RFC 7845; audio/opus is Opus inside of RTP
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
}
MEDIA_TYPES: tuple[str, ...] = tuple(
    kind.partition(";")[0] for kind in (*_MEDIA_TYPES.values(), "audio/pcm")
)
"""Media types an answer of audio may have, without parameters."""


@dataclass(frozen=True)
class AudioLayout:
    """Layout of raw samples.

    Attributes:
        sample_rate: Hz.
        num_channels: Interleaved channels.
    """

    sample_rate: int
    num_channels: int

    def headers(self) -> dict[str, str]:
        """HTTP headers that describe raw PCM."""
        return {"X-Sample-Rate": str(self.sample_rate), "X-Channels": str(self.num_channels)}

    def duration_s(self, num_bytes: int) -> float:
        """Duration of a number of bytes of 16-bit PCM, seconds."""
        return num_bytes / (_BYTES_PER_SAMPLE * self.num_channels * self.sample_rate)


def content_type(audio_format: Format, layout: AudioLayout) -> str:
    """Media type of an answer."""
    if audio_format == "pcm":
        return f"audio/pcm; rate={layout.sample_rate}; channels={layout.num_channels}"
    return _MEDIA_TYPES[audio_format]


def pcm_bytes(waveform: Float[np.ndarray, "channels samples"]) -> bytes:
    """Little-endian 16-bit samples, channels interleaved; values beyond [-1, 1] are clipped."""
    scaled = np.rint(np.clip(waveform, -1.0, 1.0) * _FULL_SCALE)
    return np.ascontiguousarray(scaled.T).astype("<i2").tobytes()


def wav_header(
    layout: AudioLayout,
    num_data_bytes: int | None = None,
    provenance: Provenance | None = None,
) -> bytes:
    """Header of a WAV file with 16-bit PCM; its length does not depend on `num_data_bytes`.

    Args:
        layout: Rate and channels.
        num_data_bytes: Bytes of PCM that follow; None for a stream of unknown length.
        provenance: Generator and comment, as an INFO list before the audio; None writes the plain
            header of 44 bytes.

    Raises:
        ValueError: If the audio is larger than a WAV file can be.
    """
    info = b"" if provenance is None else _info_list(provenance)
    max_bytes = UNKNOWN_SIZE - 36 - len(info)
    if num_data_bytes is None:
        riff_size = data_size = UNKNOWN_SIZE
    elif 0 <= num_data_bytes <= max_bytes:
        riff_size, data_size = num_data_bytes + 36 + len(info), num_data_bytes
    else:
        raise ValueError(f"{num_data_bytes} bytes of PCM; a WAV file holds {max_bytes}")
    frame_bytes = layout.num_channels * _BYTES_PER_SAMPLE
    audio_format = struct.pack(
        "<4sIHHIIHH",
        b"fmt ",
        16,
        1,
        layout.num_channels,
        layout.sample_rate,
        layout.sample_rate * frame_bytes,
        frame_bytes,
        8 * _BYTES_PER_SAMPLE,
    )
    riff = struct.pack("<4sI4s", b"RIFF", riff_size, b"WAVE")
    return riff + audio_format + info + struct.pack("<4sI", b"data", data_size)


def _info_list(provenance: Provenance) -> bytes:
    """A LIST chunk with the software and a comment, each of even length."""
    chunks = b"INFO"
    for name, text in ((b"ISFT", provenance.generator), (b"ICMT", provenance.comment)):
        value = text.encode() + b"\0"
        chunks += struct.pack("<4sI", name, len(value)) + value + b"\0" * (len(value) % 2)
    return struct.pack("<4sI", b"LIST", len(chunks)) + chunks
