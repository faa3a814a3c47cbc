"""Progress of a stage: a bar on a terminal, plain log lines everywhere else."""

from __future__ import annotations

import logging
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

logger = logging.getLogger(__name__)

_LINE_EVERY_S = 10.0


class Progress:
    """Counts units and items; use it as a context manager."""

    def __init__(self, stage: str, num_units: int) -> None:
        self._stage = stage
        self._num_units = num_units
        self._num_done = self._num_read = self._num_rejected = 0
        self._next_line = time.monotonic() + _LINE_EVERY_S
        self._bar: Bar | None = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("units, {task.fields[items]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._bar.add_task(self._stage, total=self._num_units, items="")
        return self

    def __exit__(self, *_error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, num_read: int, num_rejected: int) -> None:
        """One unit is done."""
        self._num_done += 1
        self._num_read += num_read
        self._num_rejected += num_rejected
        items = f"{self._num_read} items, {self._num_rejected} rejected"
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._num_done, items=items)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _LINE_EVERY_S
            logger.info("%s: %d/%d units, %s", self._stage, self._num_done, self._num_units, items)
