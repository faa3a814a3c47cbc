"""CPU time and memory of a process and all below it, sampled while something runs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from types import TracebackType

import psutil

_EVERY_S = 0.2


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall seconds of a call, and CPU seconds of this process and all below it."""
    started = time.perf_counter()
    with Watch() as watch:
        work()
    return time.perf_counter() - started, watch.cpu_s


class Watch:
    """Use as a context manager; the figures are complete on leaving it.

    CPU time of a process that ends between two samples is lost from its last sample on: at most
    a fifth of a second each.

    Args:
        pid: Root of the tree; None is this process.
    """

    def __init__(self, pid: int | None = None) -> None:
        self._root = psutil.Process(os.getpid() if pid is None else pid)
        self._start: dict[tuple[int, float], float] = {}
        self._last: dict[tuple[int, float], float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.root_bytes = 0
        """Peak resident memory of the root."""
        self.worker_bytes = 0
        """Peak resident memory of the largest Python process below it that does units."""

    @property
    def cpu_s(self) -> float:
        """Seconds of CPU, user and system, of all processes."""
        return sum(seconds - self._start.get(key, 0.0) for key, seconds in self._last.items())

    def __enter__(self) -> Watch:
        self._sample()
        self._start = dict(self._last)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()

    def _run(self) -> None:
        while not self._stop.wait(_EVERY_S):
            self._sample()

    def _sample(self) -> None:
        try:
            tree = [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in tree:
            try:
                with process.oneshot():
                    times, memory = process.cpu_times(), process.memory_info().rss
                    key = (process.pid, process.create_time())
                    title = (process.cmdline() or [""])[0]
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
            self._last[key] = times.user + times.system
            if process == self._root:
                self.root_bytes = max(self.root_bytes, memory)
            elif "MapWorker" in title:
                self.worker_bytes = max(self.worker_bytes, memory)
