"""`make chaos`: kills `prepare` at random points and compares every byte with an undisturbed run.

Each seed kills the driver, a worker process and an actor once, in a random order, and runs the
command again until it is complete. Nothing may differ: shards, markers, Parquet files, cards.
Without Ray, which is cheap, several drivers may start at once, storage may fail, and recipes may
change between a kill and the next start.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import ray

from pipeline.cluster import ray_cluster
from tests.chaos.forked import Forks
from tests.chaos.prepare import Arena, Outcome
from tests.factories.s3 import Outage, s3_bucket


def main() -> int:
    """Run the seeds asked for; 1 if any of them left another byte."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seeds", default="0-19", help="numbers and ranges: 0-19 or 3,7,20-25")
    parser.add_argument("--clips", type=int, default=60, help="clips of the corpus (default 60)")
    parser.add_argument(
        "--own-ray",
        action="store_true",
        help="every run starts its own Ray, which dies with it; default: one for all, as a cluster",
    )
    parser.add_argument(
        "--without-ray",
        action="store_true",
        help="the driver does all units itself and alone is killed, five times a seed; cheap",
    )
    parser.add_argument(
        "--drivers",
        type=int,
        metavar="N",
        help="N drivers at a time on one directory, as --without-ray; one of them is killed",
    )
    parser.add_argument(
        "--s3-faults",
        type=float,
        metavar="SHARE",
        help="write to a bucket that answers this share of requests with 503, as --without-ray",
    )
    parser.add_argument(
        "--changed-recipes",
        action="store_true",
        help="every second start follows another recipe, the last one does not; as --without-ray",
    )
    parser.add_argument("--keep", action="store_true", help="leave the folders of failed seeds")
    options = parser.parse_args()
    if options.drivers is not None and options.drivers < 1:
        parser.error(f"--drivers is {options.drivers}; at least one must run")
    if options.s3_faults is not None and not 0 <= options.s3_faults < 1:
        parser.error(f"--s3-faults is {options.s3_faults:g}; give a share in [0, 1)")
    root = Path(tempfile.mkdtemp(prefix="chaos-"))
    outcomes = []
    has_faults = options.s3_faults is not None
    is_forked = any(
        (options.without_ray, options.drivers is not None, has_faults, options.changed_recipes)
    )
    shares_ray = not (options.own_ray or is_forked)
    with contextlib.ExitStack() as stack:
        if shares_ray:
            stack.enter_context(ray_cluster())
        address = ray.get_runtime_context().gcs_address if shares_ray else None
        arena = Arena.build(root, options.clips, address)
        bucket = None
        if has_faults:
            outage = Outage()
            bucket = stack.enter_context(s3_bucket("chaos", outage))
            outage.share = options.s3_faults
        forks = Forks(
            arena,
            num_drivers=options.drivers or 1,
            bucket=bucket,
            changes_recipes=options.changed_recipes,
        )
        run = forks.run if is_forked else arena.run
        for seed in seeds_of(options.seeds):
            outcomes.append(run(seed))
            _show(arena, seed, outcomes[-1], is_kept=options.keep)
    print(summary(outcomes, len(arena.expected)))
    is_bad = any(outcome.differences for outcome in outcomes)
    if options.keep and is_bad:
        print(f"kept: {root}")
    else:
        shutil.rmtree(root, ignore_errors=True)
    return int(is_bad)


def _show(arena: Arena, seed: int, outcome: Outcome, *, is_kept: bool) -> None:
    print(f"seed {seed}: {outcome}", flush=True)
    for line in (*outcome.differences[:20], *outcome.failures):
        print(f"  {line}", flush=True)
    if not (is_kept and outcome.differences):
        for folder in arena.root.glob(f"*-{seed}"):
            shutil.rmtree(folder, ignore_errors=True)


def seeds_of(text: str) -> list[int]:
    """Seeds of a list of numbers and ranges."""
    seeds: list[int] = []
    for word in text.split(","):
        first, _, last = word.partition("-")
        seeds += range(int(first), int(last or first) + 1)
    return seeds


def summary(outcomes: list[Outcome], num_files: int) -> str:
    """Seeds, kills by victim, and how many left other bytes."""
    kills = Counter(kill.victim for outcome in outcomes for kill in outcome.kills)
    struck = ", ".join(f"{victim} {count}" for victim, count in sorted(kills.items()))
    bad = sum(bool(outcome.differences) for outcome in outcomes)
    return (
        f"{len(outcomes)} seeds, {sum(kills.values())} kills ({struck}), "
        f"{sum(outcome.num_runs for outcome in outcomes)} runs over {num_files} files and folders: "
        f"{bad} seeds differ"
    )


if __name__ == "__main__":
    sys.exit(main())
