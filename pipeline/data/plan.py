"""Divides what was found into units of work, and keeps earlier units as they were.

The plan is written down before work starts. A clip stays in the unit that it was first put into, so
that new clips make new units and leave the others alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from pipeline.audio_containers import split_member
from pipeline.data.corpora.discover import Discovery
from pipeline.data.schema import clip_columns
from pipeline.data.stage import Unit
from pipeline.settings import digest_of
from pipeline.storage import Folder, table_bytes

PLAN = "plan.parquet"
"""Unit of every item, by the item's key."""
_SCHEMA = pa.schema([("unit", pa.int64()), ("key", pa.string())])


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
    units = {
        number: _by_file(sorted(keys, key=order.__getitem__), items)
        for number, keys in sorted(units.items())
    }
    return [_unit(number, [items[key] for key in keys]) for number, keys in units.items()]


def input_digests(discovery: Discovery) -> dict[str, str]:
    """Digest of every corpus as it was read: rows and rejects, without times of files."""
    return {
        corpus.name: digest_of(
            [clip_columns(row) for row, _ in corpus.clips] + [asdict(row) for row in corpus.rejects]
        )
        for corpus in discovery.corpora
    }


def _items(discovery: Discovery) -> dict[str, dict[str, Any]]:
    """Every clip and reject by a key that stays the same from run to run, in a fixed order."""
    items: dict[str, dict[str, Any]] = {}
    for corpus in discovery.corpora:
        for row, fact in corpus.clips:
            items[f"clip {row.clip_id}"] = {"clip": clip_columns(row), "file": asdict(fact)}
        for reject in corpus.rejects:
            columns = asdict(reject)
            key = f"reject {digest_of(columns)}"
            repeats = 0
            while key in items:
                repeats += 1
                key = f"reject {digest_of([columns, repeats])}"
            items[key] = {"reject": columns}
    return items


def _by_file(keys: Sequence[str], items: dict[str, dict[str, Any]]) -> list[str]:
    """The keys with the spans of a file together, in the order of time: one pass decodes them.

    Files stay in the order of their first span.
    """
    first: dict[str, int] = {}

    def place(key: str) -> tuple[int, float]:
        clip = items[key].get("clip")
        if clip is None:
            return first[key], 0.0
        return first[clip["uri"]], clip["start_s"] or 0.0

    for index, key in enumerate(keys):
        clip = items[key].get("clip")
        first.setdefault(key if clip is None else clip["uri"], index)
    return sorted(keys, key=place)


def _runs(
    keys: Sequence[str], items: dict[str, dict[str, Any]], unit_clips: int, unit_bytes: int
) -> Iterator[list[str]]:
    run: list[str] = []
    size_bytes, last = 0, ""
    for key in keys:
        item = items[key]
        uri = item["clip"]["uri"] if "clip" in item else ""
        # Spans share their file, and members of a tar say nothing of their own size.
        is_own = uri not in ("", last) and split_member(uri) is None
        added = item["file"]["size_bytes"] if is_own else 0
        if run and (len(run) >= unit_clips or size_bytes + added > unit_bytes):
            yield run
            run, size_bytes = [], 0
        run.append(key)
        size_bytes, last = size_bytes + added, uri
    if run:
        yield run


def _unit(number: int, items: Sequence[dict[str, Any]]) -> Unit:
    payload = {
        "clips": [item["clip"] for item in items if "clip" in item],
        "rejects": [item["reject"] for item in items if "reject" in item],
    }
    return Unit(f"{number:05d}", digest_of(list(items)), payload)


def _read(folder: Folder) -> dict[str, int]:
    if not folder.exists(PLAN):
        return {}
    table = folder.read_table(PLAN)
    return dict(zip(table["key"].to_pylist(), table["unit"].to_pylist(), strict=True))


def _write(folder: Folder, units: dict[int, list[str]]) -> None:
    rows = [{"unit": number, "key": key} for number in sorted(units) for key in units[number]]
    payload = table_bytes(pa.Table.from_pylist(rows, schema=_SCHEMA))
    if not folder.exists(PLAN) or folder.read_bytes(PLAN) != payload:
        folder.write_bytes(PLAN, payload)
