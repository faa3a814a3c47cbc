"""Runs the units of a stage: in this process, or in worker processes through Ray Data.

A unit that fails does not stop the others. One that failed for a fault of the machine is tried
again in a later round, after a wait and in another process; what still fails is listed at the end.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Protocol

from pydantic import Field
from tenacity.wait import wait_exponential

from pipeline.cluster import ray_cluster, require_resources
from pipeline.data.rejects import Reason
from pipeline.data.units.attempts import ATTEMPTS, Attempt, Attempts
from pipeline.data.units.commit_log import SEGMENT_RECORDS, CommitLog
from pipeline.data.units.commits import Commits, Unit, UnitOutput
from pipeline.data.units.lease import Lease
from pipeline.data.units.progress import Progress
from pipeline.errors import DeviceError, PipelineError, SettingsError, UnitsFailedError
from pipeline.faults import is_device_fault, is_out_of_memory, is_transient
from pipeline.settings import Settings
from pipeline.storage import Folder
from pipeline.threads import limit_loaded_blas

logger = logging.getLogger(__name__)

BETWEEN_ROUNDS = wait_exponential(multiplier=2, max=60)
"""Waits before units that failed for a fault of the machine are tried again, seconds."""
SIGNS_PER_TIMEOUT = 8
"""How often the driver looks, and a worker shows, that a long unit gets on."""
WAVE_UNITS, WAVE_UNITS_PER_WORKER = 4_096, 16
"""Units that Ray Data is given at a time, at least: it keeps a block and its bookkeeping for each.
The workers start anew with every wave."""
_STANDARD_ERROR = 2
_REARM_S = 1.0
_MAX_LISTED = 10
_MAX_TEXT = 300


class Resources(Settings):
    """What a stage may use."""

    workers: int = Field(default=2, ge=0)
    """Worker processes; 0 works inside the calling process, without Ray."""
    cpus: float = Field(default=1.0, ge=0)
    """Logical CPUs of one worker."""
    gpus: float = Field(default=0.0, ge=0)
    """GPUs of one worker; a fraction shares one."""
    memory_bytes: int | None = None
    """Memory reserved for one worker; None leaves it unaccounted."""
    max_attempts: int = Field(default=3, ge=1)
    """Attempts at a unit before it fails the job: after faults of storage, network or GPU, and
    after deaths of its worker without a clip to blame."""
    no_progress_timeout_s: float = Field(default=7200.0, gt=0)
    """The job fails if for this long no unit ends and no worker gets on within one, seconds."""
    hang_timeout_s: float = Field(default=1800.0, gt=0)
    """A worker process that does not get on within its unit for this long counts as hung and is
    killed, seconds; the clip is found and rejected like one that crashes the decoder."""
    retry_rejects: tuple[Reason, ...] = ()
    """Units with clips that were rejected for one of these reasons are processed again."""
    dry_run: bool = False
    """Say what would be done and how long it would take; write nothing."""


class UnitWorker(Protocol):
    """Does units; built once per worker process."""

    def process(self, unit: Unit) -> UnitOutput:
        """Files and counts of a unit: the same bytes for the same unit."""


@dataclass(frozen=True)
class Job:
    """What the workers of a stage need; picklable.

    Attributes:
        stage: Name of the stage.
        commits: Takes the outputs.
        attempts: Counts deaths of workers.
        worker: Class of `UnitWorker`.
        worker_kwargs: Its arguments.
        hang_timeout_s: See `Resources`; None in the calling process, which nobody may kill.
        sign_every_s: Between two signs of life of a unit that another process sees, seconds.
    """

    stage: str
    commits: Commits
    attempts: Attempts
    worker: type
    worker_kwargs: dict[str, Any]
    hang_timeout_s: float | None = None
    sign_every_s: float = 60.0


class UnitRunner:
    """Runs units in one process: counts the attempt, works, commits."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._worker: UnitWorker | None = None
        self._is_broken = False
        self._armed_at = -_REARM_S

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Do one unit, given and answered as a small row.

        Failures come back in the row: an exception would end the whole job, and lose its type on
        the way out of a worker process.
        """
        if self._is_broken:  # the accelerator is lost to this process; another one goes on
            os._exit(1)
        result = {"name": row["name"], "read": 0, "rejected": 0, "deadly": "", "failure": ""}
        result |= {"is_transient": False, "is_fatal": False}
        try:
            attempt = self._job.attempts.begin(row["name"])
            if attempt.verdict:
                return result | {"deadly": attempt.verdict}
            output = self._process(row, attempt)
            self._job.attempts.end(row["name"])
        # Whatever it is: it is this unit's failure, and the others go on.
        except Exception as error:  # noqa: BLE001
            return result | self._failure(row["name"], error)
        finally:
            self._disarm()
        return result | {"read": output.read, "rejected": len(output.rejects)}

    def _process(self, row: dict[str, Any], attempt: Attempt) -> UnitOutput:
        life = _SignsOfLife(attempt, self._job.sign_every_s)

        def beat() -> None:
            self._arm()
            life.show()

        def guard(item: str) -> bool:
            self._arm()
            return attempt.enter(item)

        self._arm()
        if self._worker is None:
            self._worker = self._job.worker(**self._job.worker_kwargs)
        unit = Unit(
            row["name"], row["digest"], json.loads(row["payload"]), attempt.number, guard, beat
        )
        with limit_loaded_blas():
            output = self._worker.process(unit)
        self._arm()
        self._job.commits.write(unit, self._job.stage, output)
        return output

    def _failure(self, unit: str, error: Exception) -> dict[str, Any]:
        logger.error("%s: unit %s failed", self._job.stage, unit, exc_info=error)
        is_device = isinstance(error, DeviceError) or (
            is_device_fault(error) and not is_out_of_memory(error)
        )
        self._worker = None if is_device else self._worker
        self._is_broken = is_device and self._job.hang_timeout_s is not None
        is_again = is_transient(error) or is_device_fault(error)
        with contextlib.suppress(Exception):  # a failure is no death: it blames no clip
            self._job.attempts.end(unit)
        text = " ".join(str(error).split())
        return {
            "failure": f"{type(error).__name__}: {text[:_MAX_TEXT]}",
            "is_transient": is_again,
            "is_fatal": isinstance(error, SettingsError),
        }

    def _arm(self) -> None:
        """Give the process this long again; C code that hangs may hold the interpreter's lock."""
        timeout_s = self._job.hang_timeout_s
        if timeout_s is None or time.monotonic() - self._armed_at < min(_REARM_S, timeout_s / 10):
            return
        self._armed_at = time.monotonic()
        faulthandler.dump_traceback_later(timeout_s, exit=True, file=_STANDARD_ERROR)

    def _disarm(self) -> None:
        self._armed_at = -_REARM_S
        if self._job.hang_timeout_s is not None:
            faulthandler.cancel_dump_traceback_later()


@dataclass
class _SignsOfLife:
    """Rewrites the state of an attempt now and then, so that the driver sees a long unit live."""

    attempt: Attempt
    every_s: float
    _shown_at: float = field(default_factory=time.monotonic)

    def show(self) -> None:
        if time.monotonic() - self._shown_at >= self.every_s:
            self._shown_at = time.monotonic()
            self.attempt.save()


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
    if resources.workers == 0:
        run = UnitRunner(job)
        yield from (run(_row(unit)) for unit in units)
        return
    with ray_cluster():
        asked = {"CPU": resources.cpus, "GPU": resources.gpus}
        require_resources(
            job.stage,
            asked | {"memory": resources.memory_bytes or 0},
            remedy="lower resources.cpus, resources.gpus or resources.memory_bytes of the stage, "
            "or start nodes that have them",
        )
        wave = max(WAVE_UNITS, WAVE_UNITS_PER_WORKER * resources.workers)
        for start in range(0, len(units), wave):
            rows = [_row(unit) for unit in units[start : start + wave]]
            yield from _ray_results(rows, job, resources)


def _row(unit: Unit) -> dict[str, Any]:
    return {"name": unit.name, "digest": unit.digest, "payload": json.dumps(unit.payload)}


def _ray_results(
    rows: list[dict[str, Any]], job: Job, resources: Resources
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
            compute=ray.data.ActorPoolStrategy(size=min(resources.workers, len(rows))),
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
