"""`make chaos`: kills `prepare` at random points and compares every byte with an undisturbed run.

Each seed kills the driver, a worker process and an actor once, in a random order, and runs the
command again until it is complete. Nothing may differ: shards, markers, Parquet files, cards.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.chaos.prepare import Arena, Outcome


def main() -> int:
    """Run the seeds asked for; 1 if any of them left another byte."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seeds", default="0-19", help="numbers and ranges: 0-19 or 3,7,20-25")
    parser.add_argument("--clips", type=int, default=60, help="clips of the corpus (default 60)")
    parser.add_argument("--keep", action="store_true", help="leave the folders of failed seeds")
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="chaos-"))
    arena = Arena.build(root, options.clips)
    outcomes = {}
    for seed in seeds_of(options.seeds):
        outcome = outcomes[seed] = arena.run(seed)
        print(f"seed {seed}: {outcome}", flush=True)
        for line in (*outcome.differences[:20], *outcome.failures):
            print(f"  {line}", flush=True)
        if not (options.keep and outcome.differences):
            shutil.rmtree(root / f"seed-{seed}", ignore_errors=True)
    print(summary(list(outcomes.values()), len(arena.expected)))
    is_bad = any(outcome.differences for outcome in outcomes.values())
    if options.keep and is_bad:
        print(f"kept: {root}")
    else:
        shutil.rmtree(root, ignore_errors=True)
    return int(is_bad)


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
