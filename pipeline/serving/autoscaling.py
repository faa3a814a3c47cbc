"""How many replicas the queued audio needs: a policy for Ray Serve.

Ongoing requests say little, since one is half a second of sound and the next five minutes of
speech. Each replica reports the audio that its requests still lack, in seconds; requests that wait
in the routers count as much as those in the replicas do on average.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

from model.bundle.limits import DEFAULT_DURATION_S, Limits, modality_of
from model.bundle.reading import expected_s
from pipeline.serving.schemas import AudioJob

QUEUED_AUDIO = "queued_audio_s"
"""Name of the figure that replicas report, seconds."""


class Situation(Protocol):
    """What the policy reads of Ray Serve's `AutoscalingContext`."""

    @property
    def aggregated_metrics(self) -> Mapping[str, Mapping[Any, float]]:
        """Reported figures by name and replica."""

    @property
    def total_num_requests(self) -> float:
        """Requests in the replicas and before them."""

    @property
    def total_queued_requests(self) -> float | None:
        """Requests that wait before the replicas."""

    @property
    def current_num_replicas(self) -> int:
        """Replicas that run."""


class QueuedAudioPolicy:
    """Replicas in proportion to the audio that is still to be made.

    Serve puts its own delays and bounds around it, and starts a replica at once for the first
    request where there is none.

    Args:
        target_audio_s: Audio that each replica should have before it, seconds.
    """

    def __init__(self, target_audio_s: float) -> None:
        self._target_audio_s = target_audio_s

    def __call__(self, situation: Situation) -> tuple[int, dict[str, Any]]:
        """Replicas wanted, and the policy's state, which is empty."""
        reported = situation.aggregated_metrics.get(QUEUED_AUDIO, {})
        queued_s = sum(reported.values())
        waiting = situation.total_queued_requests or 0.0
        inside = situation.total_num_requests - waiting
        mean_s = queued_s / inside if inside >= 1 and queued_s > 0 else DEFAULT_DURATION_S
        wanted = math.ceil((queued_s + waiting * mean_s) / self._target_audio_s)
        # Audio is all handed out before the last request is over.
        return max(wanted, int(situation.total_num_requests > 0)), {}


def expected_audio_s(job: AudioJob, limits: Limits) -> float:
    """Audio that a job is expected to make, seconds; 0 where it will be refused."""
    if job.duration_s is not None:
        return job.duration_s
    if job.transcript is None:
        return min(DEFAULT_DURATION_S, limits.max_duration_s)
    longest_s = limits.longest_speech_s if modality_of(job) == "speech" else limits.max_duration_s
    return min(expected_s(job.transcript, is_singing=job.is_singing) / job.speed, longest_s)
