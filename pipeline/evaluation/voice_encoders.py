"""Similarity of voices: the cosine between speaker embeddings of two recordings.

Models of this project are conditioned on the built-in encoder, so a model may score well by it
without sounding like the speaker. The one of Resemblyzer is independent, and is used if that
package is installed. A published x-vector model (WavLM and others) is read from a local folder.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
from typing import Any, Protocol

import numpy as np
import soxr
from numpy.typing import NDArray
from torch import Tensor

from pipeline.acoustics.speaker import StatisticsEncoder
from pipeline.acoustics.speaker_models import XVectorEncoder

_RESEMBLYZER_RATE = 16_000


class VoiceEncoder(Protocol):
    """A speaker encoder: the direction of its vector identifies the voice.

    Attributes:
        name: Name in the results.
        is_independent: Whether no model of this project is conditioned on it.
        version: Digest of its weights, or a version.
    """

    name: str
    version: str
    is_independent: bool

    def embed(self, waveform: Tensor, sample_rate: int) -> NDArray[np.float32]:
        """Embedding of `channels samples`; all zeros for silence."""


class ConditioningEncoder:
    """The built-in encoder of the data pipeline."""

    name = StatisticsEncoder.name
    version = "1"
    is_independent = False

    def embed(self, waveform: Tensor, sample_rate: int) -> NDArray[np.float32]:
        """Embedding of a waveform; all zeros for silence."""
        return StatisticsEncoder().embed(waveform.float().numpy(), sample_rate)


class ResemblyzerEncoder:
    """The GE2E encoder that the package Resemblyzer contains; nothing is downloaded.

    Source:
        Generalized end-to-end loss, arXiv:1710.10467.
    """

    name = "resemblyzer"
    version = "1"
    is_independent = True

    def __init__(self) -> None:
        """Load the encoder.

        Raises:
            ImportError: If Resemblyzer is not installed.
        """
        from resemblyzer import VoiceEncoder as Encoder

        with contextlib.redirect_stdout(io.StringIO()):  # it prints how long loading took
            self._encoder: Any = Encoder("cpu", verbose=False)

    def embed(self, waveform: Tensor, sample_rate: int) -> NDArray[np.float32]:
        """Embedding of a waveform; all zeros for silence."""
        mono = soxr.resample(waveform.float().mean(0).numpy(), sample_rate, _RESEMBLYZER_RATE)
        level = float(np.sqrt(np.mean(np.square(mono)))) if len(mono) else 0.0
        if level < 1e-4:
            return np.zeros(256, np.float32)
        embedding: NDArray[np.float32] = self._encoder.embed_utterance(mono * (0.03 / level))
        return embedding


class PublishedEncoder:
    """An x-vector model of the transformers library in a local folder.

    It is independent unless the data was encoded with the same model; the name in the results
    tells which model it is.
    """

    is_independent = True

    def __init__(self, folder: str) -> None:
        """Load the encoder.

        Raises:
            ValueError: If the folder holds no speaker encoder, or transformers is not installed.
        """
        self._folder = folder
        self._encoder = XVectorEncoder(folder)
        self.name = self.version = self._encoder.name

    def __reduce__(self) -> tuple[type[PublishedEncoder], tuple[str]]:
        """Pickle the folder alone: the encoder is loaded again where it is unpickled."""
        return PublishedEncoder, (self._folder,)

    def embed(self, waveform: Tensor, sample_rate: int) -> NDArray[np.float32]:
        """Embedding of a waveform; all zeros for silence."""
        return self._encoder.embed(waveform.float().numpy(), sample_rate)


def encoders(folder: str | None = None) -> list[VoiceEncoder]:
    """All available encoders, the built-in one first.

    Args:
        folder: Folder of an x-vector model to use as well; None uses none.

    Raises:
        ValueError: If the folder holds no speaker encoder.
    """
    found: list[VoiceEncoder] = [ConditioningEncoder()]
    if folder is not None:
        found.append(PublishedEncoder(folder))
    if importlib.util.find_spec("resemblyzer"):
        found.append(ResemblyzerEncoder())
    return found


def similarity(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Cosine of two embeddings; 0 where either is all zeros."""
    ours, theirs = one.astype(np.float64), other.astype(np.float64)
    norm = float(np.linalg.norm(ours) * np.linalg.norm(theirs))
    return float(ours @ theirs) / norm if norm else 0.0
