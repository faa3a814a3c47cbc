"""Units of work, what they write, and which of them are done.

The records of the commit log are the only truth. A file that no record names is an orphan of a
killed worker.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa

from pipeline.data.schema import REJECTS, Reject
from pipeline.data.units.commit_log import COMMITS, LOG, CommitLog, Record
from pipeline.errors import PipelineError
from pipeline.storage import Folder, json_bytes, sha256, table_bytes

logger = logging.getLogger(__name__)

OWNER = "_stage.json"
"""Written first of all: which stage owns a directory, so that no other one sweeps it."""
REJECTED = "rejects"
"""Folder of the tables of rejects, one for every unit, be it empty."""
_READERS = 16
_READ_AHEAD = 256
_READ_BACK_BYTES = 2**20


def _unguarded(_item: str) -> bool:
    return True


def _unwatched() -> None:
    return


def _never(_record: Record) -> bool:
    return False


@dataclass(frozen=True, slots=True)
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
        totals: Sums over the unit, added over units; see `totals.hours_key`.
        details: JSON values kept in the commit record, for `card_extra`.
    """

    files: dict[str, bytes]
    read: int
    written: int
    rejects: list[Reject] = field(default_factory=list)
    totals: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """A plan of units against what is in a directory.

    Attributes:
        done: Names of units that are up to date.
        stale: Names of units whose records do not count any more.
        orphans: Files that belong to no unit that is up to date, nor to a stage in a folder below.
    """

    done: frozenset[str]
    stale: tuple[str, ...]
    orphans: tuple[str, ...]


@dataclass(frozen=True)
class Commits:
    """What workers commit to a directory, compared with a plan.

    Attributes:
        folder: The stage's directory.
        settings_digest: Digest of the settings in force; a record of other settings is stale.
    """

    folder: Folder
    settings_digest: str

    @property
    def log(self) -> CommitLog:
        """All records."""
        return CommitLog(self.folder)

    def compare(self, units: Sequence[Unit], redo: Callable[[Record], bool] = _never) -> Comparison:
        """Which units are up to date: those whose files are there with their recorded sizes.

        Args:
            units: The whole plan.
            redo: Told a record that is up to date, whether its unit is done again nevertheless.
        """
        digests = {unit.name: unit.digest for unit in units}
        there = self.folder.sizes(recursive=True)
        done, stale = set(), []
        for record in self.log:
            name = record["unit"]
            if self._is_whole(record, digests.get(name), there) and not redo(record):
                done.add(name)
                for file in record["files"]:
                    there.pop(file, None)
            else:
                stale.append(name)
        nested = [name.removesuffix(OWNER) for name in there if name.endswith(f"/{OWNER}")]
        ours = (f"{COMMITS}/", f"{LOG}/", *nested)
        orphans = [file for file in there if "/" in file and not file.startswith(ours)]
        return Comparison(frozenset(done), tuple(stale), tuple(orphans))

    def _is_whole(self, record: Record, digest: str | None, there: Mapping[str, int]) -> bool:
        sizes = record.get("sizes", {})  # records of earlier versions have none
        return (
            record["digest"] == digest
            and record["settings_digest"] == self.settings_digest
            and all(
                there.get(name, -1) == sizes.get(name, there.get(name)) for name in record["files"]
            )
        )

    def verify(self, units: Sequence[Unit], fresh: Container[str]) -> None:
        """Compare the records of a finished plan with what is there.

        Every file must be there with its recorded size. Small files of `fresh` units, written by
        this run, are read back and compared by digest: a worker of an abandoned run may have
        written after this one.

        Raises:
            PipelineError: If a unit does not pass; its record is removed, so that it is redone.
        """
        found = self.compare(units)
        written = (r for r in self.log if r["unit"] in fresh and r["unit"] in found.done)
        damaged = set(self._damaged(written))
        missing = {unit.name for unit in units if unit.name not in found.done}
        if damaged or found.stale:
            self.log.forget(damaged.union(found.stale))
        names = sorted(damaged | missing)
        if names:
            raise PipelineError(
                f"{self.folder.uri}: {len(names)} units changed after they were written, first "
                f"{', '.join(names[:5])}; is a worker of an earlier run still alive? Run again to "
                "do these anew"
            )

    def _damaged(self, records: Iterator[Record]) -> Iterator[str]:
        """Units of which a small file has another digest than its record says."""
        with ThreadPoolExecutor(_READERS) as pool:
            while batch := list(islice(records, _READ_AHEAD)):
                are_intact = pool.map(self._is_intact, batch)
                for record, is_intact in zip(batch, are_intact, strict=True):
                    if not is_intact:
                        yield record["unit"]

    def _is_intact(self, record: Record) -> bool:
        try:
            return all(
                sha256(self.folder.read_bytes(name)) == digest
                for name, digest in record["files"].items()
                if record["sizes"][name] <= _READ_BACK_BYTES
            )
        except FileNotFoundError:
            return False

    def sweep(self, orphans: Iterable[str]) -> None:
        """Remove orphans, and what killed writers left aside."""
        num_removed = self.folder.sweep()
        for name in orphans:
            self.folder.delete(name)
            num_removed += 1
        if num_removed:
            logger.info("removed %d files of unfinished or old units", num_removed)

    def write(self, unit: Unit, stage: str, output: UnitOutput) -> None:
        """Write a unit's files, its rejects, and its record last; the driver gathers records."""
        if output.read != output.written + len(output.rejects):
            raise PipelineError(
                f"{stage}: unit {unit.name} read {output.read} items but wrote {output.written} "
                f"and rejected {len(output.rejects)}; every item must be one or the other"
            )
        files = output.files | {
            f"{REJECTED}/part-{unit.name}.parquet": rejects_bytes(output.rejects)
        }
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


def rejects_bytes(rejects: Sequence[Reject]) -> bytes:
    """Reject rows as a Parquet file."""
    return table_bytes(pa.Table.from_pylist([asdict(row) for row in rejects], schema=REJECTS))
