"""A worker that counts instead of generating, and holds until told."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.serving.answer import BusyError, Item, Opening, RefusedError, Step, Usage
from pipeline.serving.engine import BatchEngine
from pipeline.serving.errors import NotReadyError
from pipeline.serving.formats import AudioLayout, pcm_bytes
from pipeline.serving.schemas import AudioJob
from pipeline.serving.settings import BatchSettings
from pipeline.serving.stream import Service

LAYOUT = AudioLayout(sample_rate=8000, num_channels=2)
CHUNK_SAMPLES = 10
DIGEST = "d1"


class PanicError(BaseException):
    """What an extension module raises where its own code breaks down: no `Exception`."""


@dataclass(eq=False)
class Handle:
    """One request of the fake worker."""

    job: AudioJob
    num_steps: int = 0


@dataclass(eq=False)
class FakeWorker:
    """Each request takes as many steps as its duration has seconds, or as its description says at
    its end (`for N steps`). What else it does is told by words there: `refuse`, `explode`,
    `overflow`, `panic`, `break after N`, `poison after N`, `sink the batch`, `silent start`,
    `capped`, `waits` (after its first step, for
    another to end). What is `is_broken` generates nothing any more."""

    layout: AudioLayout = LAYOUT
    is_manual: bool = False
    """Whether every step waits for a permit; `release` gives some, `free` ends the waiting."""
    batches: list[list[int]] = field(default_factory=list)
    permits: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    closed: list[int] = field(default_factory=list)
    room: int | None = None
    """Requests that its memory holds at a time; None has no limit."""
    num_open: int = 0
    is_broken: bool = False
    usage: Usage | None = None

    def release(self, num_steps: int = 1) -> None:
        """Permit so many further steps."""
        self.permits.release(num_steps)

    def free(self) -> None:
        """Let all further steps run without a permit."""
        self.is_manual = False
        self.permits.release()  # for the step that waits

    def opening(self, job: AudioJob) -> Opening:
        return Opening(self.layout, DIGEST, job.speed)

    def open(self, job: AudioJob) -> Handle:
        if "refuse" in job.description:
            raise RefusedError("description", "is refused")
        if "explode" in job.description:
            raise RuntimeError("out of memory")
        if "overflow" in job.description:
            float(10**400)
        if "panic" in job.description:
            raise PanicError("end byte index 11 is not a char boundary")
        if self.num_open == self.room:
            raise BusyError("no memory")
        self.num_open += 1
        return Handle(job)

    def step(self, handles: Sequence[Handle]) -> list[Step]:
        if self.is_manual:
            self.permits.acquire()
        self.batches.append([handle.job.seed for handle in handles])
        if any("sink the batch" in handle.job.description for handle in handles):
            raise RuntimeError("device lost")
        if self.is_broken or any(_is_poison(handle) for handle in handles):
            raise IndexError("the fault of one request, or of the device")
        return [self._step(handle) for handle in handles]

    def close(self, handle: Handle) -> None:
        self.closed.append(handle.job.seed)
        self.num_open -= 1

    def warm_up(self) -> None:
        if self.is_broken:
            raise RuntimeError("device lost")

    def _step(self, handle: Handle) -> Step:
        words = handle.job.description
        if "waits" in words and handle.num_steps and not self.closed:
            return Step(b"", is_last=False, is_waiting=True)
        handle.num_steps += 1
        if "break after" in words and handle.num_steps > int(words.split()[-1]):
            return Step(b"", is_last=True, failure="broke")
        told = int(words.split()[-2]) if words.endswith(" steps") else 1
        is_last = handle.num_steps >= int(handle.job.duration_s or told)
        if "silent start" in words and handle.num_steps == 1:
            return Step(b"", is_last)
        samples = chunk(handle.job.seed, handle.num_steps)
        usage = self.usage if is_last else None
        return Step(samples, is_last, is_capped="capped" in words, usage=usage)


def _is_poison(handle: Handle) -> bool:
    words = handle.job.description
    return "poison after" in words and handle.num_steps >= int(words.split()[-1])


def chunk(seed: int, step: int) -> bytes:
    """PCM of one step of one request."""
    level = ((seed * 31 + step) % 100) / 100
    return pcm_bytes(np.full((LAYOUT.num_channels, CHUNK_SAMPLES), level))


def pcm_in(wav: bytes) -> bytes:
    """What follows the header of a WAV file or of its beginning."""
    return wav[wav.index(b"data") + 8 :]


def audio(seed: int, num_steps: int) -> bytes:
    """PCM of a whole request."""
    return b"".join(chunk(seed, step) for step in range(1, num_steps + 1))


def end(engine: BatchEngine[Any], worker: FakeWorker | None = None) -> None:
    """Close an engine and wait for its thread, whose worker no longer waits for permits."""
    if worker is not None:
        worker.free()
    engine.close()
    engine._thread.join()


class LocalEngine:
    """A batch engine in this process, behind the interface of the endpoint."""

    def __init__(
        self,
        settings: BatchSettings | None = None,
        *,
        is_manual: bool = False,
        worker: FakeWorker | None = None,
    ) -> None:
        self.worker = worker or FakeWorker(is_manual=is_manual)
        self.batch: BatchEngine[Handle] = BatchEngine(self.worker, settings or BatchSettings())
        self.jobs: list[AudioJob] = []
        self.is_ready = True
        self.default_voice: str | None = None

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *_: object) -> None:
        end(self.batch, self.worker)

    async def generate(self, job: AudioJob) -> AsyncIterator[Item]:
        self.jobs.append(job)
        # Closed here and now; a loop alone would leave that to the garbage collector.
        async with aclosing(self.batch.generate(job)) as items:  # type: ignore[type-var]
            async for item in items:
                yield item

    async def service(self) -> Service:
        if not self.is_ready:
            raise NotReadyError("no replica answered in 5 s")
        voices = {"ada": "A woman speaks.", "bob": ""}
        return Service(LAYOUT, voices, 192, DIGEST, {"alloy": "ada"}, self.default_voice)
