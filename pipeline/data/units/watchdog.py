"""Ends a job that hangs."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from types import FrameType
from typing import Any

from pipeline.data.units.runner import Job
from pipeline.errors import PipelineError
from pipeline.storage import Folder

logger = logging.getLogger(__name__)

SIGNS_PER_TIMEOUT = 8
"""How often the driver looks, and a worker shows, that a long unit gets on."""


class Watchdog:
    """Ends a job in which nothing gets on: no unit ends, and no worker shows a sign of life.

    Args:
        folder: Where workers rewrite the state of their units as they get on.
        job: The job.
        timeout_s: Time without progress.
    """

    def __init__(self, folder: Folder, job: Job, timeout_s: float) -> None:
        self._folder, self._stage, self._timeout_s = folder, job.stage, timeout_s
        self._fed_at = time.monotonic()
        self._handler: Any = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def feed(self) -> None:
        """Note progress."""
        self._fed_at = time.monotonic()

    def __enter__(self) -> Watchdog:
        if threading.current_thread() is threading.main_thread():
            # A signal wakes the main thread out of any wait; SIGINT is ignored in the background.
            self._handler = signal.signal(signal.SIGALRM, self._raise)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._thread.join()
        if self._handler is not None:
            signal.signal(signal.SIGALRM, self._handler)

    def _raise(self, _number: int, _frame: FrameType | None) -> None:
        raise PipelineError(
            f"{self._stage}: for {self._timeout_s:g} s no unit ended and no worker got on; look at "
            "the cluster, and raise resources.no_progress_timeout_s if it is only slow"
        )

    def _watch(self) -> None:
        seen: list[int] = []
        while not self._ended.wait(self._timeout_s / SIGNS_PER_TIMEOUT):
            with contextlib.suppress(Exception):  # storage that fails tells nothing
                times = sorted(self._folder.times_ns())
                if times != seen:
                    seen = times
                    self.feed()
            if time.monotonic() - self._fed_at >= self._timeout_s:
                logger.error("%s: nothing gets on for %g s", self._stage, self._timeout_s)
                if self._handler is not None:
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
                return
