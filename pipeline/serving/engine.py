"""Continuous batching: one worker thread steps many requests, async readers take their audio.

The thread alone touches the model. It never blocks on a reader: chunks go to a queue for each
request, and a request whose reader lags is paused by the scheduler while the others go on. Between
steps the thread looks at what arrived and what was cancelled, so a cancelled request frees its slot
at the next step.

Over Ray Serve the reader is the router, which takes chunks as fast as they come and keeps them for
a slow client; what one client can leave buffered there is bounded by `limits.max_duration_s`, for
speech by about twice `limits.max_speech_s`.

An exception in a worker fails only the request that caused it. If several requests were stepped
together, each is retried by itself, and its reader continues where it was, since the audio of a
request depends on the request alone. A request that fails again ends.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from pipeline.errors import PipelineError
from pipeline.serving.answer import (
    BusyError,
    Ending,
    HandleT,
    Item,
    Refusal,
    RefusedError,
    Step,
    Worker,
)
from pipeline.serving.scheduler import FullError, Scheduler
from pipeline.serving.schemas import AudioJob
from pipeline.serving.settings import BatchSettings

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

_FAILURES_TO_PROBE = 3
_MAX_REPEATS = 2
"""Retries of a request after a step that it shared with others failed."""


class GenerationFailedError(PipelineError):
    """Generation of a request failed; its stream must be aborted."""


@dataclass(frozen=True)
class _Failed:
    message: str


_Queued = bytes | Refusal | _Failed | Ending


@dataclass
class _Running(Generic[HandleT]):
    """A request that holds a slot.

    Attributes:
        handle: The worker's.
        num_sent: Bytes sent to its reader.
        num_repeated: Bytes to skip after a retry, since the reader has them already.
        num_repeats: Retries so far.
        is_alone: Whether it is stepped by itself until it is past the failed step.
    """

    handle: HandleT
    num_sent: int = 0
    num_repeated: int = 0
    num_repeats: int = 0
    is_alone: bool = False


class _Reader:
    """Queue of the chunks of one request, from the worker thread to its event loop."""

    def __init__(self, job: AudioJob) -> None:
        self.job = job
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[_Queued] = asyncio.Queue()

    def put(self, item: _Queued) -> None:
        """Hand over an item; called from the worker thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)

    async def get(self) -> _Queued:
        """The next item."""
        return await self._items.get()


class BatchEngine(Generic[HandleT]):
    """Generates for many requests at once.

    Args:
        worker: Worker that generates the audio.
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
        self._running: dict[int, _Running[HandleT]] = {}
        self._tickets = itertools.count()
        self._is_closing = False
        self._step_began: float | None = None
        self._consecutive_failures = 0
        self._is_broken = False
        self._counts = {"steps": 0, "blocks": 0, "largest_batch": 0, "finished": 0, "cancelled": 0}
        self._thread = threading.Thread(target=self._run, name="generation", daemon=True)
        self._thread.start()

    async def generate(self, job: AudioJob) -> AsyncIterator[Item]:
        """Audio of one request: an opening, PCM chunks and an ending, or one refusal.

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
            while True:
                item = await reader.get()
                if isinstance(item, _Failed):
                    if is_open:
                        raise GenerationFailedError(item.message)
                    item = Refusal(500, item.message, code="generation_failed")
                elif not isinstance(item, Refusal) and not is_open:
                    is_open = True
                    yield self._worker.opening(job)
                yield item
                if not isinstance(item, bytes):
                    return
                with self._changed:
                    self._scheduler.taken(ticket)
                    self._changed.notify()
        finally:
            self._drop(ticket)

    def stats(self) -> dict[str, int]:
        """Counters since the start, and the numbers of running and waiting requests."""
        with self._changed:
            return self._counts | {
                "running": self._scheduler.num_running,
                "waiting": self._scheduler.num_waiting,
            }

    def check_health(self) -> None:
        """Check that generation makes progress.

        Raises:
            GenerationFailedError: If the thread ended, a step is stuck or steps keep failing.
        """
        began = self._step_began
        if not self._thread.is_alive():
            raise GenerationFailedError("the generation thread has ended")
        if began is not None and time.monotonic() - began > self._settings.stall_timeout_s:
            raise GenerationFailedError(f"a step takes over {self._settings.stall_timeout_s} s")
        if self._is_broken:
            raise GenerationFailedError(f"{self._consecutive_failures} steps in a row failed")

    def close(self) -> None:
        """Stop the worker thread; running requests fail."""
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
        is_going = True
        while is_going:
            turn = self._attempt("a turn of generation failed", self._advance)
            is_going = turn is not False
            if isinstance(turn, _Failed):
                self._fail_all(turn)
        with self._changed:
            self._is_closing = True
        self._fail_all(_Failed("the replica ended"))

    def _advance(self) -> bool:
        """One iteration of the worker thread; False if it should end."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closing or self._scheduler.has_step())
            if self._is_closing:
                return False
            plan = self._scheduler.plan()
            jobs = [(t, self._readers[t].job) for t in plan.opened if t in self._readers]
        for ticket in plan.closed:
            self._forget(ticket)
        self._step_began = time.monotonic()
        try:
            self._open_all(jobs)
            tickets = [ticket for ticket in plan.stepped if ticket in self._running]
            alone = [ticket for ticket in tickets if self._running[ticket].is_alone]
            together = [ticket for ticket in tickets if ticket not in alone]
            for group in [together, *([ticket] for ticket in alone)]:
                if group:
                    self._step(group)
            if self._consecutive_failures >= _FAILURES_TO_PROBE:
                self._probe()
        finally:
            self._step_began = None
        return True

    def _open_all(self, jobs: Sequence[tuple[int, AudioJob]]) -> None:
        """Open requests in order, as far as the memory of the worker goes; the others wait."""
        for index, (ticket, job) in enumerate(jobs):
            if self._open(ticket, job):
                continue
            with self._changed:
                self._scheduler.postpone([ticket for ticket, _ in jobs[index:]])
            return

    def _open(self, ticket: int, job: AudioJob) -> bool:
        """Open a request, or end it where it cannot be made; False if it must wait."""
        opened = self._attempt("a request could not be opened", lambda: self._opened(job))
        if opened is None:
            return False
        if isinstance(opened, _Running):
            self._running[ticket] = opened
        else:
            self._fail(ticket, opened)
        return True

    def _opened(self, job: AudioJob) -> _Running[HandleT] | Refusal | None:
        try:
            return _Running(self._worker.open(job))
        except RefusedError as error:
            return Refusal(400, error.message, error.param)
        except BusyError:
            return None

    def _step(self, tickets: Sequence[int]) -> None:
        handles = [self._running[ticket].handle for ticket in tickets]
        steps = self._attempt(
            f"a step of {len(tickets)} requests failed", lambda: self._worker.step(handles)
        )
        if isinstance(steps, _Failed):
            for ticket in tickets:
                if len(tickets) == 1 or self._running[ticket].num_repeats >= _MAX_REPEATS:
                    self._fail(ticket, steps)
                else:
                    self._repeat(ticket)
            return
        self._consecutive_failures, self._is_broken = 0, False
        with self._changed:
            self._counts["steps"] += 1
            self._counts["blocks"] += sum(not step.is_waiting for step in steps)
            self._counts["largest_batch"] = max(self._counts["largest_batch"], len(tickets))
            # First who waits, then who frees memory: these may have tried before it was free.
            for ticket, step in zip(tickets, steps, strict=True):
                if step.is_waiting:
                    self._scheduler.short_of_memory(ticket)
            if any(step.frees_memory for step in steps):
                self._scheduler.memory_freed()
        for ticket, step in zip(tickets, steps, strict=True):
            if step.failure is not None:
                self._fail(ticket, _Failed(step.failure))
            elif not step.is_waiting:
                self._deliver(ticket, step)

    def _repeat(self, ticket: int) -> None:
        """Retry a request by itself; its reader continues after the bytes that it has."""
        before = self._running[ticket]
        self._forget(ticket)
        with self._changed:
            reader = self._readers.get(ticket)
        if reader is None:
            return  # cancelled meanwhile
        if not self._open(ticket, reader.job):
            self._fail(ticket, _Failed("the replica has no memory left; try again"))
        if ticket in self._running:
            again = self._running[ticket]
            again.num_repeated = before.num_sent
            again.num_repeats = before.num_repeats + 1
            again.is_alone = True

    def _deliver(self, ticket: int, step: Step) -> None:
        running = self._running[ticket]
        samples = step.samples[running.num_repeated :]
        running.num_repeated -= len(step.samples) - len(samples)
        running.num_sent += len(step.samples)
        if samples:
            running.is_alone = False
        with self._changed:
            has_chunk = bool(samples)
            if not self._scheduler.produced(ticket, is_last=step.is_last, has_chunk=has_chunk):
                return
            if has_chunk:
                self._readers[ticket].put(samples)
            if step.is_last:
                self._counts["finished"] += 1
                self._end(ticket, Ending(step.is_capped, step.usage))
        if step.is_last:
            self._forget(ticket)

    def _probe(self) -> None:
        """After consecutive failures, test whether the device still works."""
        failed = self._attempt("the replica cannot generate any more", self._worker.warm_up)
        self._is_broken = failed is not None
        if not self._is_broken:
            self._consecutive_failures = 0

    def _attempt(self, what: str, action: Callable[[], ResultT]) -> ResultT | _Failed:
        """Result of an action; on any exception, an error message for clients."""
        try:
            return action()
        # A panic of an extension module is no Exception, and must not end the thread either.
        except BaseException:  # logged with its traceback
            error_id = uuid.uuid4().hex[:12]
            logger.exception("error %s: %s", error_id, what)
            self._consecutive_failures += 1
            return _Failed(f"generation failed; the log of the server has it as error {error_id}")

    def _forget(self, ticket: int) -> None:
        running = self._running.pop(ticket, None)
        if running is not None:
            self._attempt(
                "a request could not be closed", lambda: self._worker.close(running.handle)
            )

    def _fail(self, ticket: int, item: Refusal | _Failed) -> None:
        self._forget(ticket)
        with self._changed:
            if self._scheduler.failed(ticket):
                self._end(ticket, item)

    def _fail_all(self, failed: _Failed) -> None:
        for ticket in list(self._running):
            self._forget(ticket)
        with self._changed:
            for ticket in list(self._readers):
                self._scheduler.cancel(ticket)
                self._end(ticket, failed)

    def _end(self, ticket: int, item: _Queued) -> None:
        reader = self._readers.pop(ticket, None)
        if reader is not None:
            reader.put(item)
