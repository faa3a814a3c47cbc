"""A stage worker that copies numbers, and fails on demand."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

from pipeline.data.schema import Reject
from pipeline.data.units.attempts import Attempts
from pipeline.data.units.commits import Commits
from pipeline.data.units.runner import Job
from pipeline.data.units.stage import Resources, Unit, UnitOutput, hours_key, run_stage
from pipeline.errors import SettingsError
from pipeline.settings import Settings
from pipeline.storage import Folder

FAULTS: dict[str, Exception] = {
    "EIO": OSError(errno.EIO, "Input/output error"),
    "S3": OSError("AWS Error SLOW_DOWN during GetObject operation: (HTTP status 503)"),
    "CUDA": RuntimeError("CUDA error: an illegal memory access was encountered"),
    "MEMORY": RuntimeError("CUDA out of memory. Tried to allocate 20 MiB"),
    "BUG": TypeError("a bug"),
    "SETTING": SettingsError("the key is wrong"),
}


class NumberSettings(Settings):
    factor: int = 1
    max_reject_share: float = 1.0


class NumberWorker:
    """Writes each number of a unit times a factor; odd ones are rejected.

    Args:
        factor: Multiplier.
        log: File that gets a line per unit processed, across processes.
        fail_at: Unit name that raises.
        faults: File with a line per fault still to come: the unit, and the name of an error in
            `FAULTS`; a fault happens once.
        reject: Reason of rejects.
        die_at: Item that ends the process at once.
        stay_at: Unit name that never ends.
    """

    def __init__(
        self,
        factor: int = 1,
        log: str = "",
        fail_at: str = "",
        die_at: int | None = None,
        stay_at: str = "",
        die_blindly: bool = False,
        faults: str = "",
        reject: str = "odd",
    ) -> None:
        self.factor, self.log, self.fail_at = factor, log, fail_at
        self.die_at, self.stay_at, self.die_blindly = die_at, stay_at, die_blindly
        self.faults, self.reject = faults, reject

    def process(self, unit: Unit) -> UnitOutput:
        if self.log:
            with Path(self.log).open("a") as stream:
                stream.write(unit.name + "\n")
        while unit.name == self.stay_at:
            time.sleep(1.0)
        self._raise_fault(unit.name)
        if unit.name == self.fail_at:
            raise OSError(f"injected failure at {unit.name}")
        if self.die_blindly and self.die_at in unit.payload["numbers"]:
            os._exit(1)
        kept, rejects = [], []
        for number in unit.payload["numbers"]:
            if not unit.guard(str(number)):
                rejects.append(self._reject("worker_died", number))
            elif number == self.die_at:
                os._exit(1)
            elif number % 2:
                rejects.append(self._reject(self.reject, number))
            else:
                kept.append(number * self.factor)
        files = {f"parts/part-{unit.name}.json": json.dumps(kept).encode()}
        return UnitOutput(
            files,
            read=len(unit.payload["numbers"]),
            written=len(kept),
            rejects=rejects,
            totals={hours_key("sound", "en" if kept else None): sum(kept) / 10},
            details={"kept": len(kept)},
        )

    def _raise_fault(self, unit: str) -> None:
        if not self.faults:
            return
        planned = Path(self.faults).read_text().splitlines()
        for line in planned:
            name, _, kind = line.partition(" ")
            if name == unit:
                planned.remove(line)
                Path(self.faults).write_text("\n".join(planned))
                raise FAULTS[kind]

    @staticmethod
    def _reject(reason: str, number: int) -> Reject:
        return Reject(stage="numbers", corpus="n", reason=reason, detail=f"got {number}")


def number_units(count: int, size: int = 4) -> list[Unit]:
    """`count` units of consecutive numbers."""
    units = []
    for index in range(count):
        numbers = list(range(index * size, (index + 1) * size))
        units.append(Unit(f"{index:08d}", f"digest-{numbers}", {"numbers": numbers}))
    return units


def job_of(folder: Path, **given: Any) -> Job:
    """A job of `NumberWorker` below a folder, with arguments of the worker."""
    at = Folder.at(folder)
    return Job("numbers", Commits(at, ""), Attempts(at, "run", 3), NumberWorker, given)


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every file's bytes and every directory below a folder, by relative name."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def run_numbers(folder: Any, units: list[Unit], **given: Any) -> dict[str, Any]:
    """`run_stage` on numbers: keyword arguments of the worker, or of the stage."""
    settings = given.pop("settings", NumberSettings())
    return run_stage(
        Folder.at(folder),
        stage=given.pop("stage", "numbers"),
        settings=settings,
        inputs=given.pop("inputs", {"numbers": "abc"}),
        units=units,
        worker=NumberWorker,
        resources=given.pop("resources", Resources(workers=0)),
        max_reject_share=settings.max_reject_share,
        card_extra=given.pop("card_extra", None),
        worker_kwargs={"factor": settings.factor, **given},
    )
