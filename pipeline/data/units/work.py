"""Runs the units of a stage: in this process, or in worker processes through Ray Data.

A unit that fails does not stop the others. One that failed for a fault of the machine is tried
again in a later round, after a wait and in another process; what still fails is listed at the end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

from tenacity.wait import wait_exponential

from pipeline.data.units.commit_log import SEGMENT_RECORDS, CommitLog
from pipeline.data.units.commits import Unit
from pipeline.data.units.lease import Lease
from pipeline.data.units.pool import pool_results
from pipeline.data.units.progress import Progress
from pipeline.data.units.resources import Resources
from pipeline.data.units.runner import Job, UnitRunner, row_of
from pipeline.errors import PipelineError, UnitsFailedError

logger = logging.getLogger(__name__)

BETWEEN_ROUNDS = wait_exponential(multiplier=2, max=60)
"""Waits before units that failed for a fault of the machine are tried again, seconds."""
_MAX_LISTED = 10


def work(pending: Sequence[Unit], job: Job, resources: Resources, lease: Lease) -> None:
    """Do units; those that fail for a fault of the machine again, at most `max_attempts` times.

    Raises:
        UnitsFailedError: If some are not done in the end, with their names and errors.
        SettingsError: If the cluster can never hold a worker, or a setting is wrong for all units.
        PipelineError: If nothing gets on for `no_progress_timeout_s`.
        InUseError: If another driver took over.
    """
    failed: dict[str, str] = {}
    left = pending
    gatherer = _Gatherer(job.commits.log)
    with Progress(job.stage, len(pending)) as progress:
        for number in range(1, resources.max_attempts + 1):
            again = set()
            for result in _results(left, job, resources):
                lease.check()
                if result["is_fatal"]:
                    raise PipelineError(f"{job.stage}: {result['failure']}")
                name, why = result["name"], result["failure"] or result["deadly"]
                failed.pop(name, None)
                if not why:
                    gatherer.add(name)
                else:
                    failed[name] = f"unit {name}: {why}" if result["failure"] else f"{name} ({why})"
                if result["is_transient"]:
                    again.add(name)
                else:
                    progress.advance(result["read"], result["rejected"])
            left = [unit for unit in left if unit.name in again]
            if not left or number == resources.max_attempts:
                break
            _wait(job.stage, number, len(left))
    if failed:
        raise UnitsFailedError(_list_of(job.stage, failed, len(pending)))


class _Gatherer:
    """Gathers records of finished units into the commit log, a segment at a time."""

    def __init__(self, log: CommitLog) -> None:
        self._log = log
        self._units: list[str] = []

    def add(self, unit: str) -> None:
        """Take a unit that a worker has committed."""
        self._units.append(unit)
        if len(self._units) == SEGMENT_RECORDS:
            self._log.append(self._units)
            self._units = []


def _wait(stage: str, number: int, num_units: int) -> None:
    state: Any = type("State", (), {"attempt_number": number})  # all that tenacity's waits look at
    wait_s = BETWEEN_ROUNDS(state)
    logger.warning("%s: %d units are tried again in %.0f s", stage, num_units, wait_s)
    time.sleep(wait_s)


def _list_of(stage: str, failed: dict[str, str], num_units: int) -> str:
    for name in sorted(failed):
        logger.error("%s: not done: %s", stage, failed[name])
    listed = [failed[name] for name in sorted(failed)[:_MAX_LISTED]]
    more = len(failed) - len(listed)
    return (
        f"{stage}: {len(failed)} of {num_units} units failed, the others are kept: "
        + "; ".join([*listed, *([f"and {more} more, see the log"] if more else [])])
        + "; running again does only these"
    )


def _results(units: Sequence[Unit], job: Job, resources: Resources) -> Iterator[dict[str, Any]]:
    if resources.workers:
        yield from pool_results(units, job, resources)
        return
    run = UnitRunner(job)
    yield from (run(row_of(unit)) for unit in units)
