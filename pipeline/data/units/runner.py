"""Does units in one process: counts the attempt, works, commits, and answers how it went."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import os
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipeline.data.units.attempts import Attempt, Attempts
from pipeline.data.units.commits import Commits, Unit, UnitOutput
from pipeline.errors import DeviceError, SettingsError
from pipeline.faults import is_device_fault, is_out_of_memory, is_transient
from pipeline.threads import limit_loaded_blas

logger = logging.getLogger(__name__)

_STANDARD_ERROR = 2
_REARM_S = 1.0
_MAX_TEXT = 300


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


def row_of(unit: Unit) -> dict[str, Any]:
    """A unit as the flat row that a `UnitRunner` takes."""
    return {"name": unit.name, "digest": unit.digest, "payload": json.dumps(unit.payload)}


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
