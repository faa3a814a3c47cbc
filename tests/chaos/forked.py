"""The driver killed while it does the units itself: many seeds without Ray, in seconds each.

The jobs are forked from a server that has imported everything and done nothing, so a start costs
next to nothing and the kills fall into the work.
"""

from __future__ import annotations

import multiprocessing
import random
import time
from pathlib import Path

import torch

from pipeline.data.prepare import PrepareSettings, prepare
from pipeline.storage import Folder
from tests.chaos.kills import RUN_TIMEOUT_S, Kill, num_units
from tests.chaos.prepare import STAGES, Arena, Outcome, differences, digests

_LONGEST_DELAY_S = 0.05
"""About the time of one unit."""
_LOOK_EVERY_S = 0.002


def run_forked(arena: Arena, seed: int, num_kills: int = 5) -> Outcome:
    """Prepare in one process that is killed several times, again until complete, and compare."""
    output = arena.root / f"forked-{seed}"
    outcome = Outcome()
    started = time.monotonic()
    waiting = _driver_kills(seed, num_units(arena.root / "undisturbed"), num_kills)
    outcome.missed = [kill for kill in waiting if not _is_killed(arena.root, output, kill, outcome)]
    outcome.kills = [kill for kill in waiting if kill not in outcome.missed]
    last = _start(arena.root, output, outcome)
    last.join(RUN_TIMEOUT_S)
    if last.exitcode != 0:
        last.kill()
        outcome.differences.append(f"the last run ended with {last.exitcode}")
    outcome.differences += differences(arena.expected, digests(output))
    outcome.seconds = time.monotonic() - started
    return outcome


def prepare_in_process(root: str, output: str) -> None:
    """The command of the undisturbed run, without a command line."""
    torch.set_num_threads(1)  # as in the undisturbed run: the number changes the rounding
    settings: dict[str, dict[str, object]] = {
        stage: {"resources": {"workers": 0}} for stage in STAGES
    }
    settings["ingest"] |= {"inputs": (f"{root}/corpora",), "unit_clips": 4}
    settings["shard"] |= {"parts_per_unit": 2}
    prepare(PrepareSettings.model_validate(settings), Folder.at(output), f"{root}/codec")


def _driver_kills(seed: int, num_units: int, count: int) -> list[Kill]:
    draw = random.Random(seed)
    points = sorted(draw.randrange(num_units) for _ in range(count))
    return [
        Kill("driver", point, draw.uniform(0, _LONGEST_DELAY_S), draw.random()) for point in points
    ]


def _start(root: Path, output: Path, outcome: Outcome) -> multiprocessing.process.BaseProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "jobs.prepare", "tests.chaos.forked"])
    job = context.Process(target=prepare_in_process, args=(str(root), str(output)))
    job.start()
    outcome.num_runs += 1
    return job


def _is_killed(root: Path, output: Path, kill: Kill, outcome: Outcome) -> bool:
    """Start, wait for the point, kill; False if the job was done before."""
    job = _start(root, output, outcome)
    deadline = time.monotonic() + RUN_TIMEOUT_S
    while job.is_alive() and num_units(output) < kill.after and time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY_S)
    job.join(kill.delay_s)
    is_struck = job.is_alive()
    job.kill()
    job.join()
    return is_struck
