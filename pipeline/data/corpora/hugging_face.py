"""Hugging Face `datasets` on disk: Arrow or Parquet tables with a column of audio."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from model.text import clean_text
from pipeline.audio.containers import table_batches, table_schema
from pipeline.data.corpora.base import CorpusFolder, Place
from pipeline.data.corpora.fields import ROLES
from pipeline.data.corpora.file_names import suffix_of
from pipeline.data.corpora.manifests import JsonObject, ManifestError, read_json
from pipeline.data.corpora.records import RecordReader, split_named
from pipeline.data.rejects import Reason
from pipeline.data.schema import ClipRow, Reject
from pipeline.storage import Folder

SAVED = ("dataset_dict.json", "state.json")
"""Files that `save_to_disk` writes beside tables of several splits, and beside those of one."""
_CARD_LICENCE = re.compile(r"^license:\s*([\w.-]+)\s*$", re.MULTILINE)
_METADATA = b"huggingface"  # key of the features in the schema of a table


@dataclass(frozen=True)
class AudioTable:
    """A table with audio.

    Attributes:
        name: Name of the table in the corpus.
        audio: Column with the audio.
        schema: All columns of the table.
        classes: Class names of the columns that hold class numbers.
    """

    name: str
    audio: str
    schema: pa.Schema
    classes: dict[str, list[str]]


class HuggingFace:
    """A folder of `save_to_disk`, or Parquet files as the hub holds them, directly or in `data`.

    Audio inside the tables stays there; a row that only has a path names a file of the folder. The
    split is the folder of the table, or the start of its name.
    """

    layout = "hugging_face"

    def matches(self, folder: CorpusFolder) -> bool:
        """Whether the folder was saved by the package, or a Parquet file in it holds audio."""
        is_part = SAVED[0] not in folder.files and folder.exists_above(SAVED[0])
        if is_part or posixpath.basename(folder.root) == "data":
            return False
        return any(_open_table(folder, name) is not None for name in _tables(folder))

    def read(self, folder: CorpusFolder) -> Iterator[ClipRow | Reject]:
        """Every row of every table with audio."""
        reader = RecordReader(folder)
        licence = _claim_cards(folder)
        for name in _tables(folder):
            table = _open_table(folder, name)
            if table is None:
                folder.claim(name)
                yield folder.reject(Reason.MALFORMED, "not a table with a column of audio", name)
                continue
            yield from _read_table(reader, table, licence)


def _tables(folder: CorpusFolder) -> list[str]:
    """Tables of the corpus; the package's caches of maps and filters are none of it."""
    if any(name in folder.files for name in SAVED):
        names = [name for name in folder.names if suffix_of(name) == ".arrow"]
        return [n for n in names if n.count("/") <= 1 and not _last(n).startswith("cache-")]
    return folder.having(".parquet") + folder.having(".parquet", within="data")


def _last(name: str) -> str:
    return posixpath.basename(name)


def _claim_cards(folder: CorpusFolder) -> str | None:
    """Claim the package's own files; the licence, if the card or one of them gives it."""
    found = _CARD_LICENCE.search(folder.head("README.md").decode(errors="replace"))
    licence = found[1] if found else None
    for name in folder.names:
        if _last(name) in (*SAVED, "dataset_info.json", "dataset_infos.json"):
            folder.claim(name)
        if _last(name) == "dataset_info.json" and licence is None:
            try:
                info = read_json(folder.read_bytes(name))
            except ManifestError:
                continue  # a card that is not JSON loses its licence, not the rows
            given = info.get("license") if isinstance(info, JsonObject) else None
            licence = clean_text(given)[0] if isinstance(given, str) else None
    if licence is not None and licence.lower().startswith("cc"):
        licence = licence.upper()  # the hub writes SPDX ids in lower case
    return licence or None


def _open_table(folder: CorpusFolder, name: str) -> AudioTable | None:
    """The table, if it is one and has a column of audio."""
    try:
        schema = table_schema(folder.listing.folder, posixpath.join(folder.root, name))
    except OSError:
        return None
    features = _features(schema)
    columns = [column for column, kind in features.items() if kind.get("_type") == "Audio"]
    columns += [field.name for field in schema if _holds_audio(field.type)]
    if not columns:
        return None
    classes = {
        column: kind["names"]
        for column, kind in features.items()
        if kind.get("_type") == "ClassLabel" and isinstance(kind.get("names"), list)
    }
    return AudioTable(name, columns[0], schema, classes)


def _features(schema: pa.Schema) -> dict[str, JsonObject]:
    try:
        info = read_json((schema.metadata or {}).get(_METADATA, b"{}"))
        features = info["info"]["features"]
    except (ManifestError, KeyError, TypeError):
        return {}
    named = features.items() if isinstance(features, JsonObject) else ()
    return {
        column: kind
        for column, kind in named
        if column in schema.names and isinstance(kind, JsonObject)
    }


def _holds_audio(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind):
        return False
    names = {kind.field(index).name for index in range(kind.num_fields)}
    return {"bytes", "path"} <= names


def _read_table(
    reader: RecordReader, table: AudioTable, licence: str | None
) -> Iterator[ClipRow | Reject]:
    folder = reader.folder
    folder.claim(table.name)
    top, path = folder.listing.folder, posixpath.join(folder.root, table.name)
    facts = {
        "split": split_named(posixpath.dirname(table.name)) or split_named(table.name),
        "licence": licence,
    }
    try:
        columns, is_inside = _columns_of_parquet(top, path, table)
        for first, batch in table_batches(top, path, columns):
            cells = batch.column(table.audio) if table.audio in batch.schema.names else None
            kept = [name for name in batch.schema.names if name != table.audio]
            for index, record in enumerate(batch.select(kept).to_pylist()):
                record = facts | _named(record, table.classes)
                is_embedded = _has_bytes(cells, index) if is_inside is None else is_inside
                if is_embedded:
                    yield _embedded(reader, table, first + index, record)
                else:
                    record["audio"] = _path(cells, index)
                    yield reader.read(record, Place(table.name, first + index + 1))
    except OSError as error:
        yield folder.reject(Reason.MALFORMED, str(error), table.name)


def _columns_of_parquet(
    folder: Folder, path: str, table: AudioTable
) -> tuple[list[str] | None, bool | None]:
    """Columns to read, all but the bytes of the audio, and whether the table has such bytes.

    Both are None for an Arrow table, which is mapped and not read.
    """
    if suffix_of(path) != ".parquet":
        return None, None
    is_struct = pa.types.is_struct(table.schema.field(table.audio).type)
    inner = f"{table.audio}.bytes" if is_struct else table.audio
    num_values = num_nulls = 0
    with folder.open(path) as source:
        metadata = pq.ParquetFile(source).metadata
        for group in range(metadata.num_row_groups):
            for index in range(metadata.num_columns):
                chunk = metadata.row_group(group).column(index)
                if chunk.path_in_schema == inner:
                    num_values += chunk.num_values
                    known = chunk.statistics
                    num_nulls += known.null_count if known and known.has_null_count else 0
    columns = [name for name in table.schema.names if name != table.audio]
    has_path = is_struct or pa.types.is_string(table.schema.field(table.audio).type)
    if has_path:
        columns.append(f"{table.audio}.path" if is_struct else table.audio)
    is_text = has_path and not is_struct
    return columns, not is_text and num_nulls < num_values


def _has_bytes(cells: pa.Array, index: int) -> bool:
    inner = cells.field("bytes") if pa.types.is_struct(cells.type) else cells
    return bool(inner[index].is_valid) and not pa.types.is_string(inner.type)


def _path(cells: pa.Array | None, index: int) -> str | None:
    if cells is None:
        return None
    value = (cells.field("path") if pa.types.is_struct(cells.type) else cells)[index].as_py()
    return value if isinstance(value, str) else None


def _embedded(
    reader: RecordReader, table: AudioTable, row: int, record: dict[str, Any]
) -> ClipRow | Reject:
    kept = {key: value for key, value in record.items() if key.lower() not in ROLES["audio"]}
    return reader.read(
        kept,
        Place(table.name, row + 1),
        audio=f"{table.name}#{table.audio}/{row}",
        key=f"{posixpath.splitext(table.name)[0]}/{row}",
    )


def _named(record: dict[str, Any], classes: dict[str, list[str]]) -> dict[str, Any]:
    """The record with the names of its classes in place of their numbers."""
    for column, names in classes.items():
        number = record.get(column)
        if isinstance(number, int):
            record[column] = names[number] if 0 <= number < len(names) else None
    return record
