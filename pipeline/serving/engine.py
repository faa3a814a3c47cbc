"""Many requests through one device: a worker thread that steps, and async readers.

The thread alone touches the model. It never blocks on a reader: chunks go to a queue for each
request, and a request whose reader lags is paused by the scheduler while the others go on. Between
steps the thread looks at what arrived and what was cancelled, so a cancelled request frees its slot
at the next step.

Over Ray Serve the reader is the router, which takes chunks as fast as they come and keeps them for
a slow client; what one client can leave buffered there is bounded by `limits.max_duration_s`.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from pipeline.errors import PipelineError
from pipeline.serving.formats import AudioLayout
from pipeline.serving.scheduler import FullError, Scheduler
from pipeline.serving.schemas import AudioJob
from pipeline.serving.settings import BatchSettings

logger = logging.getLogger(__name__)

HandleT = TypeVar("HandleT")

_FAILURES_TO_UNHEALTHY = 3


class GenerationFailedError(PipelineError):
    """Generation of a request broke down; its stream must be aborted."""


class RefusedError(ValueError):
    """A worker cannot make what a request asks for."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(param, message)
        self.param = param
        self.message = message


@dataclass(frozen=True)
class Opening:
    """First item of an answer, sent together with its first chunk."""

    layout: AudioLayout


@dataclass(frozen=True)
class Refusal:
    """Only item of an answer that is none.

    Attributes:
        status: HTTP status.
        message: The value received, the limit and the remedy.
        param: Field of the request at fault.
    """

    status: int
    message: str
    param: str | None = None


@dataclass(frozen=True)
class Step:
    """What a step gave for one request.

    Attributes:
        samples: PCM bytes; empty while the codec looks ahead.
        is_last: Whether the audio is complete.
        failure: Why the request cannot go on; None while all is well.
    """

    samples: bytes
    is_last: bool
    failure: str | None = None


class Worker(Protocol[HandleT]):
    """What makes audio; called from one thread."""

    layout: AudioLayout

    def open(self, job: AudioJob) -> HandleT:
        """Begin a request; raises `RefusedError` if it cannot be made."""

    def step(self, handles: Sequence[HandleT]) -> list[Step]:
        """Advance each request by one block; raises `RuntimeError` if none can go on."""

    def close(self, handle: HandleT) -> None:
        """Free what a request holds, ended or not; it is not stepped again."""


@dataclass(frozen=True)
class _Failed:
    message: str


class _Ended:
    pass


_Item = bytes | Refusal | _Failed | _Ended


class _Reader:
    """Where the chunks of one request go, from the thread to its event loop."""

    def __init__(self, job: AudioJob) -> None:
        self.job = job
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[_Item] = asyncio.Queue()

    def put(self, item: _Item) -> None:
        """Hand over an item; called from the worker thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)

    async def get(self) -> _Item:
        """The next item."""
        return await self._items.get()


class BatchEngine(Generic[HandleT]):
    """Generates for many requests at once.

    Args:
        worker: Makes the audio.
        settings: Slots, waiting places, lag, and when a step counts as stuck.
    """

    def __init__(self, worker: Worker[HandleT], settings: BatchSettings) -> None:
        self._worker = worker
        self._settings = settings
        self._scheduler: Scheduler[int] = Scheduler(
            settings.max_batch, settings.max_waiting, settings.max_buffered, settings.max_opened
        )
        self._changed = threading.Condition()
        self._readers: dict[int, _Reader] = {}
        self._handles: dict[int, HandleT] = {}
        self._tickets = itertools.count()
        self._is_closing = False
        self._step_began: float | None = None
        self._consecutive_failures = 0
        self._counts = {"steps": 0, "blocks": 0, "largest_batch": 0, "finished": 0, "cancelled": 0}
        self._thread = threading.Thread(target=self._run, name="generation", daemon=True)
        self._thread.start()

    async def generate(self, job: AudioJob) -> AsyncIterator[Opening | Refusal | bytes]:
        """Audio of one request: an opening and PCM chunks, or one refusal.

        Leaving the iterator early cancels the request.

        Raises:
            GenerationFailedError: If it broke down after the first chunk.
        """
        reader = _Reader(job)
        ticket = next(self._tickets)
        refusal = self._submit(ticket, reader)
        if refusal is not None:
            yield refusal
            return
        is_open = False
        try:
            while not isinstance(item := await reader.get(), _Ended):
                if isinstance(item, _Failed):
                    if is_open:
                        raise GenerationFailedError(item.message)
                    item = Refusal(500, item.message)
                elif isinstance(item, bytes) and not is_open:
                    is_open = True
                    yield Opening(self._worker.layout)
                yield item
                if isinstance(item, Refusal):
                    return
                with self._changed:
                    self._scheduler.taken(ticket)
                    self._changed.notify()
        finally:
            self._drop(ticket)

    def stats(self) -> dict[str, int]:
        """Counts since the start, and how many requests run and wait now."""
        with self._changed:
            return self._counts | {
                "running": self._scheduler.num_running,
                "waiting": self._scheduler.num_waiting,
            }

    def check_health(self) -> None:
        """Whether generation goes on.

        Raises:
            GenerationFailedError: If the thread ended, a step is stuck or steps keep failing.
        """
        began = self._step_began
        if not self._thread.is_alive():
            raise GenerationFailedError("the generation thread has ended")
        if began is not None and time.monotonic() - began > self._settings.stall_timeout_s:
            raise GenerationFailedError(f"a step takes over {self._settings.stall_timeout_s} s")
        if self._consecutive_failures >= _FAILURES_TO_UNHEALTHY:
            raise GenerationFailedError(f"{self._consecutive_failures} steps in a row failed")

    def close(self) -> None:
        """End the thread; running requests fail."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(timeout=self._settings.stall_timeout_s)

    def _submit(self, ticket: int, reader: _Reader) -> Refusal | None:
        with self._changed:
            if self._is_closing or not self._thread.is_alive():
                return Refusal(503, "the replica is shutting down; try again")
            try:
                self._scheduler.submit(ticket)
            except FullError as error:
                return Refusal(429, f"{error}; try again")
            self._readers[ticket] = reader
            self._changed.notify()
        return None

    def _drop(self, ticket: int) -> None:
        with self._changed:
            if self._readers.pop(ticket, None) is not None:
                self._counts["cancelled"] += 1
                self._scheduler.cancel(ticket)
                self._changed.notify()

    def _run(self) -> None:
        try:
            while self._advance():
                pass
        finally:
            with self._changed:
                self._is_closing = True
                for ticket in list(self._readers):
                    self._end(ticket, _Failed("the replica ended"))

    def _advance(self) -> bool:
        """One turn of the thread; False when it should end."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closing or self._scheduler.has_step())
            if self._is_closing:
                return False
            plan = self._scheduler.plan()
            jobs = [(t, self._readers[t].job) for t in plan.opened if t in self._readers]
        for ticket in plan.closed:
            self._forget(ticket)
        self._step_began = time.monotonic()
        for ticket, job in jobs:
            self._open(ticket, job)
        tickets = [ticket for ticket in plan.stepped if ticket in self._handles]
        if tickets:
            self._step(tickets)
        self._step_began = None
        return True

    def _open(self, ticket: int, job: AudioJob) -> None:
        try:
            self._handles[ticket] = self._worker.open(job)
        except RefusedError as error:
            self._fail(ticket, Refusal(422, error.message, error.param))
        except RuntimeError as error:
            logger.exception("request %d could not be opened", ticket)
            self._fail(ticket, _Failed(f"the request could not be opened: {error}"))

    def _step(self, tickets: Sequence[int]) -> None:
        try:
            steps = self._worker.step([self._handles[ticket] for ticket in tickets])
        except RuntimeError as error:
            logger.exception("a step of %d requests failed", len(tickets))
            self._consecutive_failures += 1
            for ticket in tickets:
                self._fail(ticket, _Failed(f"generation failed: {error}"))
            return
        self._consecutive_failures = 0
        with self._changed:
            self._counts["steps"] += 1
            self._counts["blocks"] += len(tickets)
            self._counts["largest_batch"] = max(self._counts["largest_batch"], len(tickets))
        for ticket, step in zip(tickets, steps, strict=True):
            if step.failure is not None:
                self._fail(ticket, _Failed(step.failure))
            else:
                self._deliver(ticket, step)

    def _deliver(self, ticket: int, step: Step) -> None:
        with self._changed:
            has_chunk = bool(step.samples)
            if not self._scheduler.produced(ticket, is_last=step.is_last, has_chunk=has_chunk):
                return
            if has_chunk:
                self._readers[ticket].put(step.samples)
            if step.is_last:
                self._counts["finished"] += 1
                self._end(ticket, _Ended())
        if step.is_last:
            self._forget(ticket)

    def _forget(self, ticket: int) -> None:
        handle = self._handles.pop(ticket, None)
        if handle is not None:
            self._worker.close(handle)

    def _fail(self, ticket: int, item: Refusal | _Failed) -> None:
        self._forget(ticket)
        with self._changed:
            if self._scheduler.failed(ticket):
                self._end(ticket, item)

    def _end(self, ticket: int, item: _Item) -> None:
        reader = self._readers.pop(ticket, None)
        if reader is not None:
            reader.put(item)
