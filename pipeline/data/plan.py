"""Divides what was found into units of work, and keeps earlier units as they were.

The plan is written down before work starts. A clip stays in the unit that it was first put into, so
that new clips make new units and leave the others alone. The rows of a unit go to a file, one line
per unit: a unit names its line, so that neither the driver nor the scheduler holds rows.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from operator import itemgetter
from typing import Any

import pyarrow as pa

from pipeline.audio.containers import split_member
from pipeline.data.corpora.catalogue import Catalogue, Item
from pipeline.data.corpora.discover import Discovery
from pipeline.data.schema import Reject, clip_columns
from pipeline.data.units.stage import Unit
from pipeline.errors import SettingsError
from pipeline.settings import digest_of
from pipeline.storage import Folder, sha256, table_bytes

PLAN = "plan"
"""Folder of the tables with the unit of every item, by the item's key."""
WHOLE_PLAN = "plan.parquet"
"""The same in one table, as earlier versions wrote it; read, and replaced."""
UNITS = "units"
"""Folder of the files with the rows of units; each is named by its digest."""
MIN_UNIT_CLIPS, MAX_UNIT_CLIPS = 64, 2048
"""Items of a unit where no number is given."""
TARGET_UNITS = 1024
"""Units into which a plan is divided as long as they have between the least and the most items."""
UNIT_DIGITS, EARLIER_UNIT_DIGITS = 8, 5
"""Digits of the number in a unit's name, so that names sort as numbers do; a plan that an earlier
version began keeps the names that its directories were written with."""
_UNITS_PER_TABLE = 128
_BYTES_PER_FILE = 8 * 2**20
_SCHEMA = pa.schema([("unit", pa.int64()), ("key", pa.string())])
_DIGITS_KEY = b"unit_digits"


def plan_units(
    discovery: Discovery,
    folder: Folder,
    unit_clips: int | None = None,
    unit_bytes: int = 2**30,
    *,
    scratch: Folder | None = None,
) -> list[Unit]:
    """Units of a discovery, stable against what is already planned in the folder.

    Args:
        discovery: What was found.
        folder: Where the plan is kept; written only if it changes.
        unit_clips: Items of a new unit; None chooses 64, and more, up to 2,048, where that would
            be more than 1,024 units.
        unit_bytes: Bytes of the files of a new unit, as far as its items are files of their own.
        scratch: Where the rows of the units go instead, and nothing is written into the folder.

    Raises:
        SettingsError: If an earlier version began the plan, and its names are used up.
    """
    catalogue = discovery.catalogue
    digits = _unit_digits(folder)
    first = catalogue.place_in_units(_planned(folder))
    if unit_clips is None:
        share = -(-catalogue.count_items() // TARGET_UNITS)
        unit_clips = min(max(share, MIN_UNIT_CLIPS), MAX_UNIT_CLIPS)
    catalogue.assign(_runs(catalogue, first, unit_clips, unit_bytes))
    _check_names(folder, catalogue, digits)
    if scratch is None:
        _write(folder, catalogue, digits)
    return list(_stored(catalogue.units(), scratch or folder, digits))


@contextlib.contextmanager
def scratch_folder(is_needed: bool) -> Iterator[Folder | None]:
    """Where a dry run keeps the rows of units while it looks at them; None for other runs."""
    if not is_needed:
        yield None
        return
    with tempfile.TemporaryDirectory() as path:
        yield Folder.at(path)


def rows_of(unit: Unit) -> dict[str, list[dict[str, Any]]]:
    """Columns of the `clips` and `rejects` of a unit, read from its file where it names one."""
    payload = unit.payload
    if "file" not in payload:
        return payload
    line = Folder.at(payload["folder"]).read_range(
        payload["file"], payload["offset"], payload["size"]
    )
    rows: dict[str, list[dict[str, Any]]] = json.loads(line)
    return rows


def _stored(items: Iterator[tuple[int, Item]], folder: Folder, digits: int) -> Iterator[Unit]:
    """Units whose rows were written to files; files of earlier plans are removed."""
    kept = set()
    units: list[Unit] = []
    lines: list[bytes] = []

    def flush() -> Iterator[Unit]:
        """Write the collected lines to one file, and give their units."""
        payload = b"".join(lines)
        name = f"{UNITS}/{sha256(payload)[:32]}.jsonl"
        kept.add(name)
        if not folder.exists(name):
            folder.write_bytes(name, payload)
        offset = 0
        for unit, line in zip(units, lines, strict=True):
            place = {"folder": folder.uri, "file": name, "offset": offset, "size": len(line)}
            yield Unit(unit.name, unit.digest, place)
            offset += len(line)
        units.clear()
        lines.clear()

    size_bytes = 0
    for number, group in groupby(items, itemgetter(0)):
        unit, rows = _unit(f"{number:0{digits}d}", [item for _, item in group])
        units.append(unit)
        lines.append(json.dumps(rows, ensure_ascii=False).encode() + b"\n")
        size_bytes += len(lines[-1])
        if size_bytes >= _BYTES_PER_FILE:
            yield from flush()
            size_bytes = 0
    if lines:
        yield from flush()
    for name in folder.child(UNITS).files():
        if f"{UNITS}/{name}" not in kept:
            folder.delete(f"{UNITS}/{name}")


def input_digests(discovery: Discovery) -> dict[str, str]:
    """Digest of every corpus as it was read: rows and rejects, without times of files."""
    digests = {}
    for corpus in discovery.corpora:
        whole = hashlib.sha256()
        for row, _ in corpus.clips:
            whole.update(digest_of(clip_columns(row)).encode())
        for reject in corpus.rejects:
            whole.update(digest_of(asdict(reject)).encode())
        digests[corpus.name] = whole.hexdigest()
    return digests


def _runs(
    catalogue: Catalogue, first: int, unit_clips: int, unit_bytes: int
) -> Iterator[tuple[int, int]]:
    """Unit and number of every item that has no unit yet."""
    unit, num_items, size_bytes, last = first, 0, 0, ""
    for number, uri, file_bytes in catalogue.fresh():
        # Spans share their file, and members of a tar say nothing of their own size.
        is_own = uri not in (None, last) and split_member(uri) is None
        added = file_bytes if is_own else 0
        if num_items and (num_items >= unit_clips or size_bytes + added > unit_bytes):
            unit, num_items, size_bytes = unit + 1, 0, 0
        yield unit, number
        num_items, size_bytes, last = num_items + 1, size_bytes + added, uri or ""


def _unit(name: str, items: Sequence[Item]) -> tuple[Unit, dict[str, list[dict[str, Any]]]]:
    """A unit without its rows, and the rows; its digest sees the facts of the files too."""
    whole = [
        {"reject": asdict(item)}
        if isinstance(item, Reject)
        else {"clip": clip_columns(item[0]), "file": asdict(item[1])}
        for item in items
    ]
    rows = {
        "clips": [item["clip"] for item in whole if "clip" in item],
        "rejects": [item["reject"] for item in whole if "reject" in item],
    }
    return Unit(name, digest_of(whole), {}), rows


def _tables(folder: Folder) -> list[str]:
    """The tables of the plan; while the whole one is there, the others may not be complete."""
    tables = [f"{PLAN}/{name}" for name in folder.child(PLAN).files(".parquet")]
    return [WHOLE_PLAN, *tables] if folder.exists(WHOLE_PLAN) else tables


def _planned(folder: Folder) -> Iterator[tuple[str, int]]:
    """Key and unit of all items that were planned before."""
    for name in _tables(folder):
        table = folder.read_table(name)
        yield from zip(table["key"].to_pylist(), table["unit"].to_pylist(), strict=True)


def _unit_digits(folder: Folder) -> int:
    tables = _tables(folder)
    if not tables:
        return UNIT_DIGITS
    metadata = folder.read_table(tables[0]).schema.metadata or {}
    return int(metadata.get(_DIGITS_KEY, EARLIER_UNIT_DIGITS))


def _check_names(folder: Folder, catalogue: Catalogue, digits: int) -> None:
    last = catalogue.last_unit()
    if len(str(last)) > digits:
        raise SettingsError(
            f"{folder.uri} was planned by an earlier version, whose unit names have {digits} "
            f"digits, and unit {last} does not fit; give ingest a new --output"
        )


def _write(folder: Folder, catalogue: Catalogue, digits: int) -> None:
    kept = set()
    schema = _SCHEMA.with_metadata({_DIGITS_KEY: str(digits)})
    for number, group in groupby(catalogue.keys(), lambda row: row[0] // _UNITS_PER_TABLE):
        rows = list(group)
        columns = {"unit": [unit for unit, _ in rows], "key": [key for _, key in rows]}
        payload = table_bytes(pa.table(columns, schema=schema))
        name = f"part-{number:08d}.parquet"
        kept.add(name)
        path = f"{PLAN}/{name}"
        if not folder.exists(path) or folder.read_bytes(path) != payload:
            folder.write_bytes(path, payload)
    for name in set(folder.child(PLAN).files()) - kept:
        folder.delete(f"{PLAN}/{name}")
    folder.delete(WHOLE_PLAN)
