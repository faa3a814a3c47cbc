"""Kills of a running job at random points: its driver, a worker process, or the actor at work."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

VICTIMS = ("driver", "worker", "actor")
"""The process that was started; any process of Ray's workers, idle ones and Ray Data's own
book-keepers included; a process in which units are done."""
ACTOR_TITLE = "MapWorker"
"""What Ray Data calls the actors of `map`."""
LONGEST_DELAY_S = 0.6
RUN_TIMEOUT_S = 900.0
"""A job that takes longer hangs."""
_LOOK_EVERY_S = 0.02


@dataclass(frozen=True)
class Kill:
    """One kill to come.

    Attributes:
        victim: One of `VICTIMS`.
        after: Units that must be written first.
        delay_s: Further wait, so that it falls anywhere inside a unit or between stages.
        choice: Uniform in [0, 1): which of several candidates.
    """

    victim: str
    after: int
    delay_s: float
    choice: float

    def __str__(self) -> str:
        return f"{self.victim} after {self.after}"


def plan_kills(seed: int, num_units: int) -> list[Kill]:
    """One kill of each victim, in a random order, at random points of the whole job."""
    draw = random.Random(seed)
    victims = draw.sample(VICTIMS, len(VICTIMS))
    points = sorted(draw.randrange(num_units) for _ in victims)
    return [
        Kill(victim, point, draw.uniform(0, LONGEST_DELAY_S), draw.random())
        for victim, point in zip(victims, points, strict=True)
    ]


def num_units(folder: Path) -> int:
    """Units that all stages below a folder have written: each has a table of rejects."""
    return len(list(folder.glob("**/rejects/part-*.parquet")))


def strike(
    kill: Kill, job: subprocess.Popen[bytes], ray_root: int, progress: Callable[[], int]
) -> bool:
    """Wait for the point and kill; False if the job ended before there was anything to kill.

    Args:
        kill: What and when.
        job: The driver.
        ray_root: Process below which the Ray instance of the job runs.
        progress: Units written so far.
    """
    deadline = time.monotonic() + RUN_TIMEOUT_S
    while progress() < kill.after:
        if job.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_EVERY_S)
    time.sleep(kill.delay_s)
    while job.poll() is None and time.monotonic() < deadline:
        found = _candidates(kill.victim, job.pid, ray_root)
        if found:
            try:
                found[int(kill.choice * len(found))].send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
            return True
        time.sleep(_LOOK_EVERY_S)
    return False


def _candidates(victim: str, pid: int, ray_root: int) -> list[psutil.Process]:
    """Processes to choose from; in a Ray instance that others use too only the job's own."""
    try:
        driver = psutil.Process(pid)
        if victim == "driver":
            return [driver]
        started = driver.create_time()
        below = psutil.Process(ray_root).children(recursive=True)
        workers = {child: _title(child) for child in below if child.create_time() > started}
    except psutil.NoSuchProcess:
        return []
    wanted = ACTOR_TITLE if victim == "actor" else ""
    found = [p for p, title in workers.items() if title.startswith("ray::") and wanted in title]
    return sorted(found, key=lambda process: process.pid)


def _title(process: psutil.Process) -> str:
    try:
        return (process.cmdline() or [""])[0]
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return ""
