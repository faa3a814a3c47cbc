"""The protocol of metrics: observe single clips in worker processes, then summarise them.

An observation is a small JSON value that depends on the audio of one clip and on `Metric.version`
alone. It is cached, so a metric never observes the same audio twice. Everything that depends on
several clips belongs into `summarise`, which runs once in the driver.
"""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.findings import Evidence, Findings
from pipeline.evaluation.held_out import HeldOutClip
from pipeline.evaluation.listening import Listening


class Metric(ABC):
    """One family of figures. Instances are pickled to the workers.

    Attributes:
        name: Name under which observations are stored; unique among the metrics.
        version: Identifies everything that an observation depends on besides the audio, such as
            the digest of a model. Observations of another version are made again.
        compares_takes: Whether it also observes generations of a prompt with further seeds.
    """

    name: str
    version: str = "1"
    compares_takes: bool = False

    def applies_to(self, clip: HeldOutClip) -> bool:
        """Whether a clip is observed."""
        return True

    @abstractmethod
    def observe(self, item: Listening, form: str) -> Any:
        """Observation of one form of a clip, as a JSON value."""

    def recordings(self, chosen: Sequence[HeldOutClip]) -> list[HeldOutClip]:
        """Further real recordings to observe, besides the evaluated clips."""
        return []

    @abstractmethod
    def summarise(self, evidence: Evidence) -> Findings:
        """Figures over all clips."""


def packed(vector: NDArray[np.floating[Any]]) -> str:
    """A vector as text, in float32: a fifth of the size of JSON numbers."""
    return base64.b64encode(np.ascontiguousarray(vector, "<f4").tobytes()).decode()


def unpacked(text: str) -> NDArray[np.float32]:
    """The vector of `packed`."""
    return np.frombuffer(base64.b64decode(text), "<f4")
