"""Formats of an answer: names, media types, sample layout and the WAV header."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

Format = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
"""Formats an answer may have; every one of them can be streamed."""

OPENAI_PCM_RATE = 24_000
"""Hz of raw PCM from the speech endpoint of OpenAI, which clients assume; one channel."""

UNKNOWN_SIZE = 0xFFFFFFFF
"""Size fields of a WAV header whose audio has no known end yet; players then read to the end."""
_MAX_DATA_BYTES = UNKNOWN_SIZE - 36
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
    """What a listener must know to play raw samples.

    Attributes:
        sample_rate: Hz.
        num_channels: Interleaved channels.
    """

    sample_rate: int
    num_channels: int

    def headers(self) -> dict[str, str]:
        """HTTP headers that describe raw PCM, which does not describe itself."""
        return {"X-Sample-Rate": str(self.sample_rate), "X-Channels": str(self.num_channels)}

    def duration_s(self, num_bytes: int) -> float:
        """Seconds that so many bytes of 16-bit PCM last."""
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


def wav_header(layout: AudioLayout, num_data_bytes: int | None = None) -> bytes:
    """The 44 bytes before 16-bit PCM.

    Args:
        layout: Rate and channels.
        num_data_bytes: Bytes of PCM that follow; None for a stream without known end.

    Raises:
        ValueError: If the audio is longer than the format can say.
    """
    if num_data_bytes is None:
        riff_size = data_size = UNKNOWN_SIZE
    elif 0 <= num_data_bytes <= _MAX_DATA_BYTES:
        riff_size, data_size = num_data_bytes + 36, num_data_bytes
    else:
        raise ValueError(f"{num_data_bytes} bytes of PCM; a WAV file holds {_MAX_DATA_BYTES}")
    frame_bytes = layout.num_channels * _BYTES_PER_SAMPLE
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        riff_size,
        b"WAVE",
        b"fmt ",
        16,
        1,
        layout.num_channels,
        layout.sample_rate,
        layout.sample_rate * frame_bytes,
        frame_bytes,
        8 * _BYTES_PER_SAMPLE,
        b"data",
        data_size,
    )
