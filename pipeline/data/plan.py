"""Divides what was found into units of work, and keeps earlier units as they were.

The plan is written down before work starts. A clip stays in the unit that it was first put into, so
that new clips make new units and leave the others alone. The rows of a unit go to a file, one line
per unit: a unit names its line, so that neither the driver nor the scheduler holds rows twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from pipeline.audio_containers import split_member
from pipeline.data.corpora.discover import Discovery
from pipeline.data.corpora.listing import FileFact
from pipeline.data.schema import ClipRow, Reject, clip_columns
from pipeline.data.stage import Unit
from pipeline.settings import digest_of
from pipeline.storage import Folder, sha256, table_bytes

PLAN = "plan.parquet"
"""Unit of every item, by the item's key."""
UNITS = "units"
"""Folder of the files with the rows of units; each is named by its digest."""
_UNITS_PER_FILE = 256
_SCHEMA = pa.schema([("unit", pa.int64()), ("key", pa.string())])
_Item = tuple[ClipRow, FileFact] | Reject
_Items = Mapping[str, _Item]


def plan_units(
    discovery: Discovery,
    folder: Folder,
    unit_clips: int,
    unit_bytes: int = 2**30,
    *,
    is_kept: bool = True,
) -> list[Unit]:
    """Units of a discovery, stable against what is already planned in the folder.

    Args:
        discovery: What was found.
        folder: Where the plan is kept; written only if it changes.
        unit_clips: Items of a new unit.
        unit_bytes: Bytes of the files of a new unit, as far as its items are files of their own.
        is_kept: Whether the plan is written down.
    """
    items = _items(discovery)
    units: dict[int, list[str]] = {}
    planned = _read(folder)
    for key in items:
        if key in planned:
            units.setdefault(planned[key], []).append(key)
    fresh = _by_file([key for key in items if key not in planned], items)
    first = max(planned.values(), default=-1) + 1
    for number, run in enumerate(_runs(fresh, items, unit_clips, unit_bytes), first):
        units[number] = run
    if is_kept:
        _write(folder, units)
    order = {key: index for index, key in enumerate(items)}
    runs = (
        (number, [items[key] for key in _by_file(sorted(keys, key=order.__getitem__), items)])
        for number, keys in sorted(units.items())
    )
    return list(_stored(runs, folder) if is_kept else (_unit(*run) for run in runs))


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


def _stored(runs: Iterator[tuple[int, list[_Item]]], folder: Folder) -> Iterator[Unit]:
    """Units whose rows were written to files; files of earlier plans are removed."""
    kept = set()
    lines: list[tuple[Unit, bytes]] = []

    def flush() -> Iterator[Unit]:
        payload = b"".join(line for _, line in lines)
        name = f"{UNITS}/{sha256(payload)[:32]}.jsonl"
        kept.add(name)
        if not folder.exists(name):
            folder.write_bytes(name, payload)
        offset = 0
        for unit, line in lines:
            place = {"folder": folder.uri, "file": name, "offset": offset, "size": len(line)}
            yield Unit(unit.name, unit.digest, place)
            offset += len(line)
        lines.clear()

    for number, items in runs:
        unit = _unit(number, items)
        line = json.dumps(unit.payload, ensure_ascii=False).encode() + b"\n"
        lines.append((Unit(unit.name, unit.digest, {}), line))
        if len(lines) == _UNITS_PER_FILE:
            yield from flush()
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


def _items(discovery: Discovery) -> dict[str, _Item]:
    """Every clip and reject by a key that stays the same from run to run, in a fixed order."""
    items: dict[str, _Item] = {}
    for corpus in discovery.corpora:
        for row, fact in corpus.clips:
            items[f"clip {row.clip_id}"] = (row, fact)
        for reject in corpus.rejects:
            columns = asdict(reject)
            key = f"reject {digest_of(columns)}"
            repeats = 0
            while key in items:
                repeats += 1
                key = f"reject {digest_of([columns, repeats])}"
            items[key] = reject
    return items


def _by_file(keys: Sequence[str], items: _Items) -> list[str]:
    """The keys with the spans of a file together, in the order of time: one pass decodes them.

    Files stay in the order of their first span.
    """
    first: dict[str, int] = {}

    def place(key: str) -> tuple[int, float]:
        item = items[key]
        if isinstance(item, Reject):
            return first[key], 0.0
        return first[item[0].uri], item[0].start_s or 0.0

    for index, key in enumerate(keys):
        item = items[key]
        first.setdefault(key if isinstance(item, Reject) else item[0].uri, index)
    return sorted(keys, key=place)


def _runs(
    keys: Sequence[str], items: _Items, unit_clips: int, unit_bytes: int
) -> Iterator[list[str]]:
    run: list[str] = []
    size_bytes, last = 0, ""
    for key in keys:
        item = items[key]
        uri, file_bytes = ("", 0) if isinstance(item, Reject) else (item[0].uri, item[1].size_bytes)
        # Spans share their file, and members of a tar say nothing of their own size.
        is_own = uri not in ("", last) and split_member(uri) is None
        added = file_bytes if is_own else 0
        if run and (len(run) >= unit_clips or size_bytes + added > unit_bytes):
            yield run
            run, size_bytes = [], 0
        run.append(key)
        size_bytes, last = size_bytes + added, uri
    if run:
        yield run


def _unit(number: int, items: Sequence[_Item]) -> Unit:
    """A unit that holds its rows; its digest sees the facts of the files too."""
    whole = [
        {"reject": asdict(item)}
        if isinstance(item, Reject)
        else {"clip": clip_columns(item[0]), "file": asdict(item[1])}
        for item in items
    ]
    payload = {
        "clips": [item["clip"] for item in whole if "clip" in item],
        "rejects": [item["reject"] for item in whole if "reject" in item],
    }
    return Unit(f"{number:05d}", digest_of(whole), payload)


def _read(folder: Folder) -> dict[str, int]:
    if not folder.exists(PLAN):
        return {}
    table = folder.read_table(PLAN)
    return dict(zip(table["key"].to_pylist(), table["unit"].to_pylist(), strict=True))


def _write(folder: Folder, units: dict[int, list[str]]) -> None:
    names = [number for number in sorted(units) for _ in units[number]]
    keys = [key for number in sorted(units) for key in units[number]]
    payload = table_bytes(pa.table({"unit": names, "key": keys}, schema=_SCHEMA))
    if not folder.exists(PLAN) or folder.read_bytes(PLAN) != payload:
        folder.write_bytes(PLAN, payload)
