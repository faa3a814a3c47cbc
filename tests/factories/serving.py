"""A worker that counts instead of generating, and holds until told."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.serving.engine import RefusedError, Step
from pipeline.serving.formats import AudioLayout, pcm_bytes
from pipeline.serving.schemas import AudioJob

LAYOUT = AudioLayout(sample_rate=8000, num_channels=2)
CHUNK_SAMPLES = 10


@dataclass(eq=False)
class Handle:
    """One request of the fake worker."""

    job: AudioJob
    num_steps: int = 0


@dataclass(eq=False)
class FakeWorker:
    """Each request takes as many steps as its duration has seconds; what it does is told by words
    in the description: `refuse`, `explode`, `break after N`, `silent start`."""

    layout: AudioLayout = LAYOUT
    is_manual: bool = False
    batches: list[list[int]] = field(default_factory=list)
    permits: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    closed: list[int] = field(default_factory=list)

    def open(self, job: AudioJob) -> Handle:
        if "refuse" in job.description:
            raise RefusedError("description", "is refused")
        if "explode" in job.description:
            raise RuntimeError("out of memory")
        return Handle(job)

    def step(self, handles: Sequence[Handle]) -> list[Step]:
        if self.is_manual:
            assert self.permits.acquire(timeout=20)
        self.batches.append([handle.job.seed for handle in handles])
        if any("sink the batch" in handle.job.description for handle in handles):
            raise RuntimeError("device lost")
        return [self._step(handle) for handle in handles]

    def close(self, handle: Handle) -> None:
        self.closed.append(handle.job.seed)

    def _step(self, handle: Handle) -> Step:
        handle.num_steps += 1
        words = handle.job.description
        if "break after" in words and handle.num_steps > int(words.split()[-1]):
            return Step(b"", is_last=True, failure="broke")
        is_last = handle.num_steps >= int(handle.job.duration_s or 1)
        if "silent start" in words and handle.num_steps == 1:
            return Step(b"", is_last)
        return Step(chunk(handle.job.seed, handle.num_steps), is_last)


def chunk(seed: int, step: int) -> bytes:
    """PCM of one step of one request."""
    level = ((seed * 31 + step) % 100) / 100
    return pcm_bytes(np.full((LAYOUT.num_channels, CHUNK_SAMPLES), level))


def audio(seed: int, num_steps: int) -> bytes:
    """PCM of a whole request."""
    return b"".join(chunk(seed, step) for step in range(1, num_steps + 1))
