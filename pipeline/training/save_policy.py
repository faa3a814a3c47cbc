"""Stops and checkpoints outside of the interval of steps: on request, by the clock, on eviction.

A worker states its wishes before a step. They are summed with the counts of the step, so that all
workers save after the same step, whichever of them asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from pipeline.storage import Folder
from pipeline.training.rundir import STOP_REQUEST

_POLL_S = 1.0


class SavePolicy:
    """Wishes of one worker.

    Args:
        run: Run directory, where a stop is requested by a file.
        rank: Rank of the worker; the first one looks at the file and the clock for all.
        every_minutes: Minutes between checkpoints by the clock; 0 has none.
        is_preempted: Whether the eviction of a node was announced.
        clock: Current time, seconds.
    """

    def __init__(
        self,
        run: Folder,
        rank: int,
        every_minutes: float,
        is_preempted: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._is_first = rank == 0
        self._every_s = 60 * every_minutes
        self._is_preempted = is_preempted
        self._clock = clock
        self._saved_s = clock()
        self._polled_s = self._saved_s - _POLL_S
        self._is_stopping = self._has_notice = self._is_noted = False

    def wants_stop(self) -> bool:
        """Whether a stop was requested."""
        self._poll()
        return self._is_stopping

    def wants_save(self) -> bool:
        """Whether a checkpoint is due by the clock, or a new notice of eviction has come.

        One notice asks for one checkpoint, however long it stands.
        """
        self._poll()
        is_late = self._every_s and self._clock() - self._saved_s >= self._every_s
        return bool(self._is_first and is_late) or (self._has_notice and not self._is_noted)

    def saved(self) -> None:
        """A checkpoint was written."""
        self._saved_s = self._clock()
        self._is_noted = self._has_notice

    def _poll(self) -> None:
        """Look at the file and for notices, at most once in `_POLL_S`."""
        now = self._clock()
        if now - self._polled_s < _POLL_S:
            return
        self._polled_s = now
        self._is_stopping = self._is_first and self._run.exists(STOP_REQUEST)
        self._has_notice = self._is_preempted()
        self._is_noted = self._is_noted and self._has_notice
