"""Similarity of voices: the cosine between speaker embeddings of two recordings.

Two encoders are used. Models of this project are conditioned on the built-in one, so a model may
score well by it without sounding like the speaker. The one of Resemblyzer is independent, and is
used if that package is installed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
from typing import Any, Protocol

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.acoustics.speaker import StatisticsEncoder

_RESEMBLYZER_RATE = 16_000


class VoiceEncoder(Protocol):
    """A speaker encoder: the direction of its vector identifies the voice.

    Attributes:
        name: Name in the results.
        is_independent: Whether no model of this project is conditioned on it.
    """

    name: str
    is_independent: bool

    def embed(self, waveform: Tensor, sample_rate: int) -> NDArray[np.float32]:
        """Embedding of `channels samples`; all zeros for silence."""


class ConditioningEncoder:
    """The built-in encoder of the data pipeline."""

    name = StatisticsEncoder.name
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


def encoders() -> list[VoiceEncoder]:
    """All available encoders, the built-in one first."""
    found: list[VoiceEncoder] = [ConditioningEncoder()]
    if importlib.util.find_spec("resemblyzer"):
        found.append(ResemblyzerEncoder())
    return found


def similarity(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Cosine of two embeddings; 0 where either is all zeros."""
    ours, theirs = torch.from_numpy(one).double(), torch.from_numpy(other).double()
    norm = float(ours.norm() * theirs.norm())
    return float(ours.dot(theirs)) / norm if norm else 0.0
