"""Audio bytes of an answer: one header, then 16-bit PCM; the pieces concatenate to one file."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Literal

import numpy as np
import soundfile
from jaxtyping import Float

Format = Literal["wav", "pcm", "flac"]
"""Formats an answer may have."""

STREAMED_FORMATS: tuple[Format, ...] = ("wav", "pcm")
"""Formats that can be sent while the audio is still being made."""

UNKNOWN_SIZE = 0xFFFFFFFF
"""Size fields of a WAV header whose audio has no known end yet; players then read to the end."""
_MAX_DATA_BYTES = UNKNOWN_SIZE - 36
_BYTES_PER_SAMPLE = 2
_FULL_SCALE = 32767.0


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
    return f"audio/{audio_format}"


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


def stream_header(audio_format: Format, layout: AudioLayout) -> bytes:
    """What comes before the first PCM bytes of a stream: a header once, or nothing.

    Raises:
        ValueError: If the format cannot be streamed.
    """
    if audio_format not in STREAMED_FORMATS:
        raise ValueError(f"{audio_format} cannot be streamed; use {' or '.join(STREAMED_FORMATS)}")
    return wav_header(layout) if audio_format == "wav" else b""


def whole_file(audio_format: Format, layout: AudioLayout, samples: bytes) -> bytes:
    """A finished answer with true sizes.

    Args:
        audio_format: What to make.
        layout: Rate and channels.
        samples: PCM of the whole answer, as `pcm_bytes` gives it.
    """
    if audio_format == "pcm":
        return samples
    if audio_format == "wav":
        return wav_header(layout, len(samples)) + samples
    frames = np.frombuffer(samples, dtype="<i2").reshape(-1, layout.num_channels)
    target = io.BytesIO()
    soundfile.write(target, frames, layout.sample_rate, format="FLAC", subtype="PCM_16")
    return target.getvalue()
