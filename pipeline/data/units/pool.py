"""Runs units in worker processes: an actor pool of Ray Data that follows the size of the cluster.

Ray Data starts the actors, starts them again where they died, and adds some when nodes with room
for them join. The units of an actor whose node was lost wait for a place on the nodes that are
left; one is free at the latest when the units that no actor has begun are used up, because idle
actors are then let go.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.cluster import num_fitting, ray_cluster, require_resources
from pipeline.data.units.attempts import ATTEMPTS
from pipeline.data.units.commits import Unit
from pipeline.data.units.resources import Resources
from pipeline.data.units.runner import Job, UnitRunner, row_of
from pipeline.data.units.watchdog import Watchdog

WAVE_UNITS, WAVE_UNITS_PER_WORKER = 4_096, 16
"""Units that Ray Data is given at a time, at least: it keeps a block and its bookkeeping for each.
The workers start anew with every wave."""


@dataclass(frozen=True)
class PoolSize:
    """How many actors there may be.

    Attributes:
        least: Actors that are asked for whether there is room or not.
        first: Actors to start with.
        most: Upper limit.
    """

    least: int
    first: int
    most: int

    @classmethod
    def of(cls, resources: Resources, num_units: int, room: int | None) -> PoolSize:
        """Size for a number of units.

        Args:
            resources: Their minimum and maximum.
            num_units: More actors than units would be idle.
            room: Actors that fit on the nodes there are now; None is no limit.
        """
        most = min(resources.workers, num_units)
        least = min(resources.min_workers, most)
        first = most if room is None else max(least, min(room, most))
        return cls(least, first, most)


def pool_results(units: Sequence[Unit], job: Job, resources: Resources) -> Iterator[dict[str, Any]]:
    """Do units in worker processes; yields the answer of a `UnitRunner` to each, in any order.

    Raises:
        SettingsError: If the cluster can never hold a worker.
        PipelineError: If nothing gets on for `no_progress_timeout_s`.
    """
    per_worker = {
        "CPU": resources.cpus,
        "GPU": resources.gpus,
        "memory": resources.memory_bytes or 0,
    }
    with ray_cluster():
        require_resources(
            job.stage,
            per_worker,
            remedy="lower resources.cpus, resources.gpus or resources.memory_bytes of the stage, "
            "or start nodes that have them",
        )
        wave = max(WAVE_UNITS, WAVE_UNITS_PER_WORKER * resources.workers)
        for start in range(0, len(units), wave):
            rows = [row_of(unit) for unit in units[start : start + wave]]
            size = PoolSize.of(resources, len(rows), num_fitting(per_worker))
            yield from _wave_results(rows, job, resources, size)


def _wave_results(
    rows: list[dict[str, Any]], job: Job, resources: Resources, size: PoolSize
) -> Iterator[dict[str, Any]]:
    import ray.data

    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False  # the order lives in the unit names
    context.execution_no_progress_timeout_s = -1  # it sees only units that end
    with ray.data.DataContext.current(context):
        done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            UnitRunner,
            fn_constructor_kwargs={"job": job},
            compute=ray.data.ActorPoolStrategy(
                min_size=size.least, initial_size=size.first, max_size=size.most
            ),
            num_cpus=resources.cpus,
            num_gpus=resources.gpus or None,
            memory=resources.memory_bytes,
        )
        done.set_name(job.stage)
        folder = job.attempts.folder.child(ATTEMPTS)
        with _without_chatter(), Watchdog(folder, job, resources.no_progress_timeout_s) as watchdog:
            for result in done.iter_rows():
                watchdog.feed()
                yield result


@contextlib.contextmanager
def _without_chatter() -> Iterator[None]:
    """Ray Data's own progress lines left out for the duration."""
    chatter = logging.getLogger("ray.data")
    level = chatter.level
    chatter.setLevel(logging.WARNING)
    try:
        yield
    finally:
        chatter.setLevel(level)
