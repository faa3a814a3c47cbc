"""Drivers killed while they do the units themselves: many seeds without Ray, in seconds each.

The jobs are forked from a server that has imported everything and done nothing, so a start costs
next to nothing and the kills fall into the work. Several drivers may start at once on one
directory, and it may lie in a bucket that answers a share of all requests with an error.
"""

from __future__ import annotations

import multiprocessing
import random
import signal
import sys
import time
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from pipeline.data.prepare import PrepareSettings, prepare
from pipeline.errors import InUseError
from pipeline.storage import Folder, sha256
from tests.chaos.kills import RUN_TIMEOUT_S, Kill, num_units
from tests.chaos.prepare import MAX_RUNS, STAGES, Arena, Outcome, differences, digests
from tests.factories.s3 import objects

_LONGEST_DELAY_S = 0.05
"""About the time of one unit."""
_LOOK_EVERY_S, _LOOK_INTO_BUCKET_EVERY_S = 0.002, 0.2


@dataclass(frozen=True)
class Forks:
    """How a seed is run.

    Attributes:
        arena: Corpus, codec, and the bytes to expect.
        num_kills: Kills of a seed.
        num_drivers: Drivers that start at once, every time.
        bucket: URI below which the output lies; None is the arena's own folder.
        changes_recipes: Whether every second start follows another recipe; the last one does not.
    """

    arena: Arena
    num_kills: int = 5
    num_drivers: int = 1
    bucket: str | None = None
    changes_recipes: bool = False

    def run(self, seed: int) -> Outcome:
        """Prepare in processes that are killed, again until complete, and compare."""
        output = f"{self.bucket or self.arena.root}/forked-{seed}"
        outcome = Outcome()
        started = time.monotonic()
        jobs: list[BaseProcess] = []
        kills = _driver_kills(seed, num_units(self.arena.root / "undisturbed"), self.num_kills)
        for number, kill in enumerate(kills):
            is_changed = self.changes_recipes and number % 2 == 0
            jobs = self._topped_up(jobs, output, outcome, is_changed=is_changed)
            is_struck = self._is_struck(jobs, output, kill)
            (outcome.kills if is_struck else outcome.missed).append(kill)
        if self.changes_recipes:  # none that follows another recipe may be the one that ends well
            _end(jobs)
        if not self._is_completed(jobs, output, outcome):
            outcome.differences.append("no driver came to the end")
        outcome.differences += self._differences(output)
        outcome.seconds = time.monotonic() - started
        return outcome

    def _topped_up(
        self, jobs: list[BaseProcess], output: str, outcome: Outcome, *, is_changed: bool = False
    ) -> list[BaseProcess]:
        """Drivers that live, and new ones in place of those that do not."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch", "jobs.prepare", "tests.chaos.forked"])
        given = (str(self.arena.root), output, is_changed)
        jobs = [job for job in jobs if job.is_alive()]
        added = [
            context.Process(target=prepare_in_process, args=given)
            for _ in range(self.num_drivers - len(jobs))
        ]
        for job in added:
            job.start()
        outcome.num_runs += len(added)
        return jobs + added

    def _is_struck(self, jobs: list[BaseProcess], output: str, kill: Kill) -> bool:
        """Wait for the point and kill one driver; False if none lives any more."""
        deadline = time.monotonic() + RUN_TIMEOUT_S
        while any(job.is_alive() for job in jobs) and self._num_units(output) < kill.after:
            if time.monotonic() > deadline:
                break
            time.sleep(_LOOK_INTO_BUCKET_EVERY_S if self.bucket else _LOOK_EVERY_S)
        time.sleep(kill.delay_s)
        living = [job for job in jobs if job.is_alive()]
        if not living:
            return False
        victim = living[int(kill.choice * len(living))]
        victim.kill()
        victim.join()
        return victim.exitcode == -signal.SIGKILL

    def _is_completed(self, jobs: list[BaseProcess], output: str, outcome: Outcome) -> bool:
        """Start until a driver ends well: each may refuse what another one is writing."""
        for _ in range(MAX_RUNS):
            jobs = self._topped_up(jobs, output, outcome)
            for job in jobs:
                job.join(RUN_TIMEOUT_S)
            for _ in range(_end(jobs)):
                outcome.failures.append(f"hung for {RUN_TIMEOUT_S:.0f} s")
            if any(job.exitcode == 0 for job in jobs):
                return True
        return False

    def _num_units(self, output: str) -> int:
        if not self.bucket:
            return num_units(Path(output))
        return sum("rejects/part-" in name for name in Folder.at(output).files(recursive=True))

    def _differences(self, output: str) -> list[str]:
        if not self.bucket:
            return differences(self.arena.expected, digests(Path(output)))
        files = {name: digest for name, digest in self.arena.expected.items() if digest}
        return differences(files, {name: sha256(body) for name, body in objects(output).items()})


def prepare_in_process(root: str, output: str, is_changed: bool) -> None:
    """The command of the undisturbed run, without a command line, or with another recipe."""
    torch.set_num_threads(1)  # as in the undisturbed run: the number changes the rounding
    settings: dict[str, dict[str, object]] = {
        stage: {"resources": {"workers": 0}} for stage in STAGES
    }
    settings["ingest"] |= {"inputs": (f"{root}/corpora",), "unit_clips": 4}
    settings["shard"] |= {"parts_per_unit": 2}
    if is_changed:
        settings["ingest"]["checks"] = {"min_duration_s": 0.7}
        settings["describe"]["seed"] = 1
    try:
        prepare(PrepareSettings.model_validate(settings), Folder.at(output), f"{root}/codec")
    except InUseError as error:  # what one of two drivers has to expect
        sys.exit(str(error))


def _end(jobs: list[BaseProcess]) -> int:
    """Kill the jobs that still live; returns how many did."""
    living = [job for job in jobs if job.is_alive()]
    for job in living:
        job.kill()
        job.join()
    return len(living)


def _driver_kills(seed: int, num_units: int, count: int) -> list[Kill]:
    draw = random.Random(seed)
    points = sorted(draw.randrange(num_units) for _ in range(count))
    return [
        Kill("driver", point, draw.uniform(0, _LONGEST_DELAY_S), draw.random()) for point in points
    ]
