"""Faults of audio files, and how they are told from faults of the storage.

A decoder's error is a property of the file only if its bytes could be read. Decoders swallow the
errors of reading, so the stream is asked afterwards.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, BinaryIO, Protocol

import numpy as np
from jaxtyping import Float

from pipeline.errors import MachineError
from pipeline.faults import SteadyFile


class AudioFault(StrEnum):
    """Kind of fault of an audio file; the values are reject reasons."""

    UNREADABLE = "unreadable"
    EMPTY_AUDIO = "empty_audio"
    TOO_LONG = "too_long"
    NON_FINITE = "non_finite"
    OUT_OF_RANGE = "out_of_range"
    SPAN_OUTSIDE_AUDIO = "span_outside_audio"
    MISSING_AUDIO = "missing_audio"


class AudioError(Exception):
    """An audio file, or a span of it, cannot be used."""

    def __init__(self, reason: AudioFault, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[Any, ...]:
        return AudioError, (self.reason, self.detail)


@dataclass(frozen=True)
class AudioInfo:
    """Facts that the header of an audio file states.

    Attributes:
        sample_rate: Hz.
        num_channels: Channels.
        num_samples: Samples per channel; None where the container does not say.
        container: Name of the container format.
    """

    sample_rate: int
    num_channels: int
    num_samples: int | None
    container: str


class Decoder(Protocol):
    """An open audio file.

    Attributes:
        info: What the header, or the first decoded frame, says.
        warnings: `code: detail`; complete after the last block.
        can_seek: Whether `blocks` starts anywhere without decoding what comes before.
        seeks_exactly: Whether it then gives the very samples that decoding from the start gives.
    """

    info: AudioInfo
    warnings: list[str]
    can_seek: bool
    seeks_exactly: bool

    def blocks(self, start: int) -> Iterator[Float[np.ndarray, "samples channels"]]:
        """Samples from `start` on, block by block; a damaged rest becomes a warning."""

    def close(self) -> None:
        """Release the file."""


@contextlib.contextmanager
def errors_of_decoder(stream: BinaryIO) -> Iterator[None]:
    """Whatever a decoder raises becomes a fault of its file, unless the bytes could not be read.

    Raises:
        MachineError: If storage failed.
        AudioError: If anything else did.
    """
    try:
        yield
    except (AudioError, MachineError):
        _check_storage(stream)
        raise
    except Exception as error:  # no list of what a decoder may raise is complete
        _check_storage(stream)
        text = " ".join(str(error).split()) or "no message"
        raise AudioError(
            AudioFault.UNREADABLE, f"the decoder failed: {type(error).__name__}: {text}"
        ) from error
    _check_storage(stream)


def _check_storage(stream: BinaryIO) -> None:
    """Raise the fault after which a `SteadyFile` looked finished, if there was one."""
    raw = getattr(stream, "raw", None)
    if isinstance(raw, SteadyFile) and raw.fault is not None:
        raise raw.fault
