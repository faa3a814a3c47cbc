"""Which requests take part in the next block step; pure bookkeeping, no tensors and no threads.

A replica generates for many requests at once, one latent block of each per step, so requests join
and leave between steps. Slots are given in order of arrival and kept until the request ends: a
request that got a slot advances in every step, so none starves. A request whose reader lags is
paused: it keeps its slot and its place, and the others go on without it. A request that needs more
memory than is free goes back to the head of the queue, which then waits for a running one to end.
A running one whose next part needs more keeps its slot and waits too, before that queue.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

TicketT = TypeVar("TicketT", bound=Hashable)


class FullError(RuntimeError):
    """Every slot and every waiting place is taken."""


@dataclass(frozen=True)
class StepPlan(Generic[TicketT]):
    """Actions of the worker before and in its next step.

    Attributes:
        closed: Requests to free, cancelled since the last plan.
        opened: Requests to prefill; they take part in this step already.
        stepped: Requests that advance by one block, oldest first; includes the opened ones.
    """

    closed: tuple[TicketT, ...]
    opened: tuple[TicketT, ...]
    stepped: tuple[TicketT, ...]


class Scheduler(Generic[TicketT]):
    """Slots, waiting places and reader lag of one replica. Callers serialise access.

    Args:
        max_batch: Slots: requests that hold generation state at the same time.
        max_waiting: Requests that may wait for a slot.
        max_buffered: Chunks a reader may lag behind before its request is paused.
        max_opened: Requests opened before one step; a prefill holds up all running requests, so a
            burst of arrivals is spread over several steps.
    """

    def __init__(
        self, max_batch: int, max_waiting: int, max_buffered: int, max_opened: int = 4
    ) -> None:
        for name, value, least in (
            ("max_batch", max_batch, 1),
            ("max_waiting", max_waiting, 0),
            ("max_buffered", max_buffered, 1),
            ("max_opened", max_opened, 1),
        ):
            if value < least:
                raise ValueError(f"{name} is {value}; it must be at least {least}")
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._max_buffered = max_buffered
        self._max_opened = max_opened
        self._waiting: OrderedDict[TicketT, None] = OrderedDict()
        self._running: OrderedDict[TicketT, int] = OrderedDict()
        self._cancelled: list[TicketT] = []
        self._is_held = False
        self._short: dict[TicketT, bool] = {}
        """Running requests without memory for their next part, and whether some was freed since."""

    @property
    def num_running(self) -> int:
        """Requests that hold a slot."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Requests that wait for a slot."""
        return len(self._waiting)

    def submit(self, ticket: TicketT) -> None:
        """Queue a new request.

        Raises:
            FullError: If no slot and no waiting place is free.
            ValueError: If the ticket is known already.
        """
        if ticket in self._waiting or ticket in self._running:
            raise ValueError(f"ticket {ticket!r} is submitted already")
        free = self._max_batch - len(self._running) + self._max_waiting
        if len(self._waiting) >= free:
            raise FullError(
                f"{len(self._running)} requests run and {len(self._waiting)} wait; "
                f"the limits are {self._max_batch} and {self._max_waiting}"
            )
        self._waiting[ticket] = None

    def cancel(self, ticket: TicketT) -> None:
        """Drop a request; its slot is free for the next plan. Unknown tickets have ended."""
        if ticket in self._waiting:
            del self._waiting[ticket]
            self._is_held = False  # another one is at the head
        elif ticket in self._running:
            self._leave(ticket)
            self._cancelled.append(ticket)

    def postpone(self, tickets: Sequence[TicketT]) -> None:
        """Return requests that could not be opened to the head of the queue, the first of them
        first; none is opened before memory is freed. Those cancelled since are ignored."""
        for ticket in reversed(tickets):
            if self._running.pop(ticket, None) is not None:
                self._waiting[ticket] = None
                self._waiting.move_to_end(ticket, last=False)
        self._is_held = bool(self._running)

    def short_of_memory(self, ticket: TicketT) -> None:
        """Record that a running request has no memory for its next part: it does not advance before
        memory is freed, and no other is opened before it. Unknown tickets are ignored."""
        if ticket in self._running:
            self._short[ticket] = False

    def memory_freed(self) -> None:
        """Let requests that wait for memory try again, running ones first."""
        self._is_held = False
        self._short = dict.fromkeys(self._short, True)

    def has_step(self) -> bool:
        """Whether `plan` would give the worker anything to do."""
        return (
            bool(self._cancelled) or self._may_open() or any(map(self._may_advance, self._running))
        )

    def plan(self) -> StepPlan[TicketT]:
        """Fill free slots in order of arrival and choose who advances."""
        closed, self._cancelled = tuple(self._cancelled), []
        if closed:  # whose memory is free only now
            self.memory_freed()
        opened: list[TicketT] = []
        while self._may_open() and len(opened) < self._max_opened:
            ticket, _ = self._waiting.popitem(last=False)
            self._running[ticket] = 0
            opened.append(ticket)
        stepped = tuple(filter(self._may_advance, self._running))
        return StepPlan(closed, tuple(opened), stepped)

    def produced(self, ticket: TicketT, *, is_last: bool, has_chunk: bool = True) -> bool:
        """Record the result of a step for a request; the last step frees its slot.

        Args:
            ticket: The request.
            is_last: Whether the request is finished.
            has_chunk: Whether there is audio to read; a codec that looks ahead may hold it back.

        Returns:
            False if the request was cancelled while the step ran: the chunk has no reader.
        """
        if ticket not in self._running:
            return False
        self._short.pop(ticket, None)
        if is_last:
            self._leave(ticket)
        elif has_chunk:
            self._running[ticket] += 1
        return True

    def failed(self, ticket: TicketT) -> bool:
        """Free the slot of a request that cannot go on; False if it was cancelled before."""
        if ticket not in self._running:
            return False
        self._leave(ticket)
        return True

    def taken(self, ticket: TicketT) -> None:
        """Record that a reader took a chunk; unknown tickets are ignored."""
        if self._running.get(ticket, 0) > 0:
            self._running[ticket] -= 1

    def _leave(self, ticket: TicketT) -> None:
        """Free a slot, and what memory came with it."""
        del self._running[ticket]
        self._short.pop(ticket, None)
        self.memory_freed()

    def _may_open(self) -> bool:
        """Whether the head of the queue may be opened: a slot is free, and no running request that
        could go on is short of memory."""
        is_free = bool(self._waiting) and len(self._running) < self._max_batch
        return is_free and not self._is_held and all(map(self._is_paused, self._short))

    def _may_advance(self, ticket: TicketT) -> bool:
        return not self._is_paused(ticket) and self._short.get(ticket, True)

    def _is_paused(self, ticket: TicketT) -> bool:
        """Whether its reader lags."""
        return self._running[ticket] >= self._max_buffered
