"""What discovery found, in Parquet: all items of a corpus, in the order in which they are planned.

Files are named by their digest and never change, so that a unit of work is a range of their rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.corpora.file_table import FileFact
from pipeline.data.schema import ClipRow, Reject, clip_columns
from pipeline.settings import canonical_json
from pipeline.storage import Folder, sha256

PART_ROWS, GROUP_ROWS = 2**16, 512
"""Rows of a file, and of a group in it, which is read whole."""
_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("uri", pa.string()),
        ("size_bytes", pa.int64()),
        ("item", pa.string()),
    ]
)


@dataclass(frozen=True)
class FoundItem:
    """A clip, or something that is none.

    Attributes:
        key: Unique, and the same whenever the corpora are read.
        uri: Where the audio of a clip lies; None for what is no clip.
        size_bytes: Size of its file.
        item: Canonical JSON: `clip` and `file`, or `reject`.
    """

    key: str
    uri: str | None
    size_bytes: int
    item: str

    @classmethod
    def of_clip(cls, key: str, row: ClipRow, fact: FileFact) -> FoundItem:
        """A clip with the facts of its file."""
        item = {"clip": clip_columns(row), "file": asdict(fact)}
        return cls(key, row.uri, fact.size_bytes or 0, canonical_json(item))

    @classmethod
    def of_reject(cls, key: str, reject: Reject) -> FoundItem:
        """Something that is no clip."""
        return cls(key, None, 0, canonical_json({"reject": asdict(reject)}))


@dataclass(frozen=True)
class Part:
    """A Parquet file of items, by name in the folder of a discovery."""

    file: str
    num_rows: int


@dataclass(frozen=True)
class FoundCorpus:
    """One corpus, read.

    Attributes:
        name: Its name.
        layout: Name of its layout.
        uri: Its directory.
        digest: Digest of its rows and rejects, without times of files.
        num_clips: Number of its clips.
        num_rejects: Number of what is no clip.
        parts: Its items.
        moved: Folders of absolute paths that are not here, with the number of paths that were
            matched by what follows.
    """

    name: str
    layout: str
    uri: str
    digest: str
    num_clips: int
    num_rejects: int
    parts: tuple[Part, ...] = field(repr=False)
    moved: dict[str, int]


@dataclass(frozen=True)
class Discovery:
    """Everything found.

    Attributes:
        store: Where the parts lie.
        corpora: In order of their names.
        ignored: Files that are neither audio nor manifest, counted by ending; folders and files
            that systems leave, such as `__MACOSX/` and `._*`, by name.
    """

    store: Folder
    corpora: list[FoundCorpus]
    ignored: dict[str, int]


def write_parts(store: Folder, items: Iterable[FoundItem]) -> tuple[Part, ...]:
    """Items as Parquet files; a group of rows is in memory at a time, and the file as it grows."""
    rows = iter(items)
    parts = []
    while group := list(islice(rows, GROUP_ROWS)):
        sink, num_rows = pa.BufferOutputStream(), 0
        with pq.ParquetWriter(sink, _SCHEMA, compression="zstd", use_dictionary=False) as writer:
            while group:
                columns = [[getattr(item, name) for item in group] for name in _SCHEMA.names]
                writer.write_table(pa.table(columns, schema=_SCHEMA))
                num_rows += len(group)
                group = list(islice(rows, GROUP_ROWS)) if num_rows < PART_ROWS else []
        payload = sink.getvalue().to_pybytes()
        name = f"{sha256(payload)[:32]}.parquet"
        if not store.exists(name):
            store.write_bytes(name, payload)
        parts.append(Part(name, num_rows))
    return tuple(parts)


def read_part(store: Folder, part: Part) -> Iterator[list[FoundItem]]:
    """All items of a part, a group of rows at a time."""
    with store.open(part.file) as stream:
        file = pq.ParquetFile(stream)
        for number in range(file.num_row_groups):
            rows = file.read_row_group(number, use_threads=False).to_pylist()
            yield [FoundItem(**row) for row in rows]


def read_range(store: Folder, file: str, first: int, count: int) -> Iterator[dict[str, Any]]:
    """Clips with their files, and rejects, of some rows of a part, as JSON values."""
    with store.open(file) as stream:
        table = pq.ParquetFile(stream)
        start = 0
        for number in range(table.num_row_groups):
            size = table.metadata.row_group(number).num_rows
            low, high = max(first - start, 0), min(first + count - start, size)
            if low < high:
                group = table.read_row_group(number, columns=["item"], use_threads=False)
                yield from map(json.loads, group["item"].slice(low, high - low).to_pylist())
            start += size
