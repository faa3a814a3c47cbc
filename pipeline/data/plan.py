"""Divides what was found into units of work, and keeps earlier units as they were.

The plan is written down before work starts. A clip stays in the unit that it was first put into, so
that new clips make new units and leave the others alone. A unit is a range of rows of the files of
a discovery, or several: neither the driver nor the scheduler holds rows.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import tempfile
from collections.abc import Iterator
from itertools import groupby, islice
from typing import Any

import pyarrow as pa

from pipeline.audio.containers import split_member
from pipeline.data.corpora.found import Discovery, FoundItem, read_part, read_range
from pipeline.data.scratch import scratch_database
from pipeline.data.units.stage import Unit
from pipeline.errors import SettingsError
from pipeline.storage import Folder, table_bytes

DISCOVERY = "discovery"
"""Folder of what the last discovery found."""
PLAN = "plan"
"""Folder of the tables with the unit of every item, by the item's key."""
MIN_UNIT_CLIPS, MAX_UNIT_CLIPS = 64, 2048
"""Items of a unit where no number is given."""
TARGET_UNITS = 1024
"""Units into which a plan is divided as long as they have between the least and the most items."""
_UNIT_DIGITS = 8
"""Digits of the number in a unit's name, so that names sort as numbers do."""
_UNITS_PER_TABLE = 128
_SCHEMA = pa.schema([("unit", pa.int64()), ("key", pa.string())])


def plan_units(
    discovery: Discovery,
    folder: Folder,
    unit_clips: int | None = None,
    unit_bytes: int = 2**30,
    *,
    is_kept: bool = True,
) -> list[Unit]:
    """Units of a discovery, stable against what is already planned in the folder.

    Args:
        discovery: What was found.
        folder: Where the plan is kept; written only if it changes.
        unit_clips: Items of a new unit; None chooses 64, and more, up to 2,048, where that would
            be more than 1,024 units.
        unit_bytes: Bytes of the files of a new unit, as far as its items are files of their own.
        is_kept: Whether the plan is written.

    Raises:
        SettingsError: If two clips have one id.
    """
    if unit_clips is None:
        num_items = sum(part.num_rows for corpus in discovery.corpora for part in corpus.parts)
        unit_clips = min(max(-(-num_items // TARGET_UNITS), MIN_UNIT_CLIPS), MAX_UNIT_CLIPS)
    keys = _Keys(_planned(folder))
    drafts = _drafts(discovery, keys, _NewUnits(keys.next_unit, unit_clips, unit_bytes))
    if is_kept:
        _write(folder, keys)
    return [
        Unit(f"{unit:0{_UNIT_DIGITS}d}", *drafts.pop(unit).finished(discovery.store))
        for unit in sorted(drafts)
    ]


@contextlib.contextmanager
def scratch_folder(is_needed: bool) -> Iterator[Folder | None]:
    """Where a dry run keeps what it finds while it looks at it; None for other runs."""
    if not is_needed:
        yield None
        return
    with tempfile.TemporaryDirectory() as path:
        yield Folder.at(path)


def rows_of(unit: Unit) -> dict[str, list[dict[str, Any]]]:
    """Columns of the `clips` and `rejects` of a unit, read from the ranges that it names."""
    payload = unit.payload
    if "ranges" not in payload:
        return payload
    rows: dict[str, list[dict[str, Any]]] = {"clips": [], "rejects": []}
    store = Folder.at(payload["store"])
    for file, first, count in payload["ranges"]:
        for item in read_range(store, file, first, count):
            kind = "clip" if "clip" in item else "reject"
            rows[f"{kind}s"].append(item[kind])
    return rows


def input_digests(discovery: Discovery) -> dict[str, str]:
    """Digest of every corpus as it was read: rows and rejects, without times of files."""
    return {corpus.name: corpus.digest for corpus in discovery.corpora}


class _Draft:
    """A unit that items are put into: ranges of rows, and the digest of what is in them."""

    __slots__ = ("_digest", "_ranges")

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._ranges: list[tuple[str, int, int]] = []

    def add(self, file: str, row: int, item: str) -> None:
        """Take the next item."""
        self._digest.update(b"," if self._ranges else b"[")
        self._digest.update(item.encode())
        if self._ranges:
            last, first, count = self._ranges[-1]
            if last == file and first + count == row:
                self._ranges[-1] = (file, first, count + 1)
                return
        self._ranges.append((file, row, 1))

    def finished(self, store: Folder) -> tuple[str, dict[str, Any]]:
        """Digest and payload of the unit; the digest sees the facts of the files too."""
        self._digest.update(b"]")
        return self._digest.hexdigest(), {"store": store.uri, "ranges": self._ranges}


class _NewUnits:
    """Gives items that have no unit yet their units, in the order in which they come."""

    def __init__(self, first: int, unit_clips: int, unit_bytes: int) -> None:
        self._unit, self._unit_clips, self._unit_bytes = first, unit_clips, unit_bytes
        self._num_items = self._size_bytes = 0
        self._last_uri: str | None = ""

    def of(self, item: FoundItem) -> int:
        """The unit of the next item."""
        # Spans share their file, and members of a tar say nothing of their own size.
        is_own = (
            item.uri is not None and item.uri != self._last_uri and split_member(item.uri) is None
        )
        added = item.size_bytes if is_own else 0
        is_full = self._num_items >= self._unit_clips or self._size_bytes + added > self._unit_bytes
        if self._num_items and is_full:
            self._unit, self._num_items, self._size_bytes = self._unit + 1, 0, 0
        self._num_items, self._size_bytes = self._num_items + 1, self._size_bytes + added
        self._last_uri = item.uri or ""
        return self._unit


class _Keys:
    """The units of items by key, on scratch disk: as they were planned before, and as they are now.

    Args:
        planned: Keys and units of the earlier plan.
    """

    def __init__(self, planned: Iterator[tuple[str, int]]) -> None:
        self._database = scratch_database(cache_kib=4 * 1024)
        run = self._database.execute
        run("CREATE TABLE planned (key TEXT PRIMARY KEY, unit INT) WITHOUT ROWID")
        run("CREATE TABLE items (place INTEGER PRIMARY KEY, unit INT, key TEXT UNIQUE)")
        self._database.executemany("INSERT OR REPLACE INTO planned VALUES (?, ?)", planned)
        (last,) = run("SELECT max(unit) FROM planned").fetchone()
        self._is_new = last is None
        self.next_unit = 0 if last is None else int(last) + 1

    def unit_of(self, key: str) -> int | None:
        """The unit that an item was put into before; None if it is new."""
        if self._is_new:
            return None
        found = self._database.execute("SELECT unit FROM planned WHERE key = ?", (key,)).fetchone()
        return None if found is None else int(found[0])

    def add(self, unit: int, key: str) -> None:
        """Note the unit of the next item."""
        try:
            self._database.execute("INSERT INTO items (unit, key) VALUES (?, ?)", (unit, key))
        except sqlite3.IntegrityError:
            raise SettingsError(
                f"two clips are called {key.partition(' ')[2]!r}; give the corpora in the setting "
                "`corpora` names of which none begins like another"
            ) from None

    def __iter__(self) -> Iterator[tuple[int, str]]:
        return iter(self._database.execute("SELECT unit, key FROM items ORDER BY unit, place"))


def _drafts(discovery: Discovery, keys: _Keys, new_units: _NewUnits) -> dict[int, _Draft]:
    drafts: dict[int, _Draft] = {}
    for part in (part for corpus in discovery.corpora for part in corpus.parts):
        row = 0
        for group in read_part(discovery.store, part):
            for item in group:
                planned = keys.unit_of(item.key)
                unit = new_units.of(item) if planned is None else planned
                drafts.setdefault(unit, _Draft()).add(part.file, row, item.item)
                keys.add(unit, item.key)
                row += 1
    return drafts


def _planned(folder: Folder) -> Iterator[tuple[str, int]]:
    """Key and unit of all items that were planned before."""
    tables = folder.child(PLAN)
    for name in tables.files(".parquet"):
        table = tables.read_table(name)
        yield from zip(table["key"].to_pylist(), table["unit"].to_pylist(), strict=True)


def _table(rows: Iterator[tuple[int, str]]) -> pa.Table:
    """Units and keys as a table; Python holds a few at a time."""
    batches = []
    while batch := list(islice(rows, 4096)):
        columns = [pa.array(column) for column in zip(*batch, strict=True)]
        batches.append(pa.record_batch(columns, schema=_SCHEMA))
    return pa.Table.from_batches(batches, _SCHEMA).combine_chunks()


def _write(folder: Folder, keys: _Keys) -> None:
    kept = set()
    for number, group in groupby(keys, lambda row: row[0] // _UNITS_PER_TABLE):
        payload = table_bytes(_table(group))
        name = f"part-{number:08d}.parquet"
        kept.add(name)
        path = f"{PLAN}/{name}"
        if not folder.exists(path) or folder.read_bytes(path) != payload:
            folder.write_bytes(path, payload)
    for name in set(folder.child(PLAN).files()) - kept:
        folder.delete(f"{PLAN}/{name}")
