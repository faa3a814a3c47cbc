"""The protocol of speech engines for the starter corpus, and their error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pipeline.data.starter.dsp import Wave
from pipeline.data.starter.voices import Speaker
from pipeline.errors import PipelineError


class SpeechEngineError(PipelineError):
    """The speech engine is not installed, cannot be loaded, or refuses a voice or a text."""


@dataclass(frozen=True)
class Manner:
    """How an utterance is spoken, as factors on the speaker's own habits.

    Attributes:
        pace: Factor on the rate of speech; 2 is twice as fast.
        pitch: Factor on the mean pitch.
        liveliness: Factor on the range of the pitch.
    """

    pace: float = 1.0
    pitch: float = 1.0
    liveliness: float = 1.0


class SpeechEngine(Protocol):
    """A synthesiser that is open."""

    sample_rate: int

    def speak(self, text: str, speaker: Speaker, manner: Manner) -> Wave:
        """Speak a text at `sample_rate`.

        Raises:
            SpeechEngineError: If the voice does not exist, or nothing was spoken.
        """
