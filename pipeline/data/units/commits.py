"""Units of work and their commit records: which units are done, and what they wrote.

The records are the only truth. A file that no record names is an orphan of a killed worker.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.data.schema import REJECTS, Reject
from pipeline.errors import IncompleteError, PipelineError
from pipeline.storage import Folder, json_bytes, sha256, table_bytes

logger = logging.getLogger(__name__)

COMMITS = "_commit"
"""Folder of the commit records, one JSON file a unit."""
NO_LANGUAGE = "none"
"""Stands in totals for clips without a language."""
_READERS = 16
_READ_BACK_BYTES = 2**20


def _unguarded(_item: str) -> bool:
    return True


def _unwatched() -> None:
    return


@dataclass(frozen=True)
class Unit:
    """One piece of work, sized so that losing it is cheap.

    Attributes:
        name: Stable and safe as a file name.
        digest: Digest of everything but the settings that the output depends on.
        payload: What the worker needs, as JSON values.
        attempt: 1, or more after the worker died at this unit; the bytes must be the same.
        guard: Called with an item's id before the item is touched; False means the item keeps
            killing workers and must be rejected with reason `worker_died`. Called with an empty id
            before work that is not of one item.
        beat: Called whenever the work gets on: a worker without a sign of life counts as hung.
    """

    name: str
    digest: str
    payload: dict[str, Any]
    attempt: int = 1
    guard: Callable[[str], bool] = field(default=_unguarded, compare=False, repr=False)
    beat: Callable[[], None] = field(default=_unwatched, compare=False, repr=False)


@dataclass
class UnitOutput:
    """What one unit gives.

    Attributes:
        files: Relative name in the stage's directory to contents.
        read: Items read.
        written: Items written; the rest are `rejects`.
        rejects: One per item read and not written.
        totals: Sums over the unit, added over units; see `hours_key`.
        details: JSON values kept in the commit record, for `card_extra`.
    """

    files: dict[str, bytes]
    read: int
    written: int
    rejects: list[Reject] = field(default_factory=list)
    totals: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Commits:
    """The commit records of a directory: the only truth about which units are done.

    Attributes:
        folder: The stage's directory.
        settings_digest: Digest of the settings in force; a record of other settings is stale.
    """

    folder: Folder
    settings_digest: str

    def compare(self, units: Sequence[Unit]) -> tuple[dict[str, dict[str, Any]], list[str]]:
        """Records of the plan's units that are up to date, and names of those that are not.

        A record that cannot be read is not, nor one whose files are missing or of another size.
        """
        digests = {unit.name: unit.digest for unit in units}
        there = self.folder.sizes(recursive=True)
        names = [
            name.removeprefix(f"{COMMITS}/").removesuffix(".json")
            for name in sorted(there)
            if name.startswith(f"{COMMITS}/") and name.endswith(".json")
        ]
        done, stale = {}, []
        with ThreadPoolExecutor(_READERS) as pool:
            records = list(pool.map(self._if_readable, names))
        for name, record in zip(names, records, strict=True):
            if record is not None and self._is_whole(record, digests.get(name), there):
                done[name] = record
            else:
                stale.append(name)
        return done, stale

    def _is_whole(
        self, record: dict[str, Any], digest: str | None, there: Mapping[str, int]
    ) -> bool:
        sizes = record.get("sizes", {})  # records of earlier versions have none
        return (
            record["digest"] == digest
            and record["settings_digest"] == self.settings_digest
            and all(
                there.get(name, -1) == sizes.get(name, there.get(name)) for name in record["files"]
            )
        )

    def read(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Commit records by unit name, sorted by it.

        Raises:
            FileNotFoundError: If a unit has none.
        """
        with ThreadPoolExecutor(_READERS) as pool:
            paths = [f"{COMMITS}/{name}.json" for name in sorted(names)]
            return list(pool.map(self.folder.read_json, paths))

    def verified(self, units: Sequence[Unit], fresh: Container[str]) -> list[dict[str, Any]]:
        """The commit records of a finished plan, sorted by unit name, compared with what is there.

        Every file must be there with its recorded size. Small files of `fresh` units, written by
        this run, are read back and compared by digest: a worker of an abandoned run may have
        written after this one.

        Raises:
            PipelineError: If a unit does not pass; its record is removed, so that it is redone.
        """
        done, stale = self.compare(units)
        checked = [done[name] for name in done if name in fresh]
        with ThreadPoolExecutor(_READERS) as pool:
            are_intact = list(pool.map(self._is_intact, checked))
        damaged = [
            record["unit"] for record, good in zip(checked, are_intact, strict=True) if not good
        ]
        self.forget([*damaged, *stale])
        names = sorted({*damaged, *(unit.name for unit in units if unit.name not in done)})
        if names:
            raise PipelineError(
                f"{self.folder.uri}: {len(names)} units changed after they were written, first "
                f"{', '.join(names[:5])}; is a worker of an earlier run still alive? Run again to "
                "do these anew"
            )
        return [done[name] for name in sorted(done)]

    def _is_intact(self, record: dict[str, Any]) -> bool:
        try:
            return all(
                sha256(self.folder.read_bytes(name)) == digest
                for name, digest in record["files"].items()
                if record["sizes"][name] <= _READ_BACK_BYTES
            )
        except FileNotFoundError:
            return False

    def _if_readable(self, name: str) -> dict[str, Any] | None:
        try:
            record: dict[str, Any] = self.folder.read_json(f"{COMMITS}/{name}.json")
        except (IncompleteError, FileNotFoundError) as error:
            logger.warning("unit %s is done again: %s", name, error)
            return None
        return record

    def forget(self, names: Sequence[str]) -> None:
        """Take records away; their files are orphans from now on."""
        for name in names:
            self.folder.delete(f"{COMMITS}/{name}.json")

    def sweep(self, done: dict[str, dict[str, Any]]) -> None:
        """Remove files that belong to no finished unit; files beside the folders are not ours."""
        kept = {f"{COMMITS}/{name}.json" for name in done}
        kept.update(name for record in done.values() for name in record["files"])
        orphans = [
            name for name in self.folder.files(recursive=True) if "/" in name and name not in kept
        ]
        for name in orphans:
            self.folder.delete(name)
        num_aside = self.folder.sweep()
        if orphans or num_aside:
            logger.info("removed %d files of unfinished or old units", len(orphans) + num_aside)

    def write(self, unit: Unit, stage: str, output: UnitOutput) -> None:
        """Write a unit's files, its rejects, and its record last."""
        if output.read != output.written + len(output.rejects):
            raise PipelineError(
                f"{stage}: unit {unit.name} read {output.read} items but wrote {output.written} "
                f"and rejected {len(output.rejects)}; every item must be one or the other"
            )
        files = output.files | {f"rejects/part-{unit.name}.parquet": rejects_bytes(output.rejects)}
        for name in sorted(files):
            self.folder.write_bytes(name, files[name])
        record = {
            "unit": unit.name,
            "digest": unit.digest,
            "settings_digest": self.settings_digest,
            "files": {name: sha256(files[name]) for name in sorted(files)},
            "sizes": {name: len(files[name]) for name in sorted(files)},
            "read": output.read,
            "written": output.written,
            "rejected": len(output.rejects),
            "rejected_by_reason": dict(sorted(Counter(r.reason for r in output.rejects).items())),
            "totals": output.totals,
            "details": output.details,
        }
        self.folder.write_bytes(f"{COMMITS}/{unit.name}.json", json_bytes(record))


def files_of(records: Sequence[dict[str, Any]], prefix: str) -> list[str]:
    """Names of the files that commit records list and that begin with a prefix, sorted."""
    return sorted(name for record in records for name in record["files"] if name.startswith(prefix))


def rejects_bytes(rejects: Sequence[Reject]) -> bytes:
    """Reject rows as a Parquet file."""
    return table_bytes(pa.Table.from_pylist([asdict(row) for row in rejects], schema=REJECTS))


def hours_key(modality: str, language: str | None) -> str:
    """Key of `totals` under which hours are added up by modality and language."""
    return f"hours/{modality}/{language or NO_LANGUAGE}"


def summarise(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Counts, hours and files of a directory out of its commit records."""
    reasons: Counter[str] = Counter()
    files: dict[str, str] = {}
    parts: dict[str, list[float]] = {}
    for record in records:
        reasons.update(record["rejected_by_reason"])
        files |= record["files"]
        for name, value in record["totals"].items():
            parts.setdefault(name, []).append(value)
    totals = {name: math.fsum(values) for name, values in sorted(parts.items())}
    hours: dict[str, dict[str, float]] = {"by_modality": {}, "by_language": {}}
    for name in [name for name in totals if name.startswith("hours/")]:
        _, modality, language = name.split("/", 2)
        _add(hours["by_modality"], modality, totals[name])
        if language != NO_LANGUAGE:
            _add(hours["by_language"], language, totals[name])
        del totals[name]
    return {
        "units": len(records),
        "read": sum(record["read"] for record in records),
        "written": sum(record["written"] for record in records),
        "rejected": sum(record["rejected"] for record in records),
        "rejected_by_reason": dict(sorted(reasons.items())),
        "hours": {
            by: {name: round(value, 6) for name, value in sorted(table.items())}
            for by, table in hours.items()
        },
        "totals": totals,
        "files": dict(sorted(files.items())),
    }


def _add(table: dict[str, float], name: str, value: float) -> None:
    table[name] = table.get(name, 0.0) + value
