"""A user's own manifests in JSON lines or Parquet: one record for each clip."""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.corpora.base import CorpusFolder, Place
from pipeline.data.corpora.entries import json_line_entries
from pipeline.data.corpora.file_names import suffix_of
from pipeline.data.corpora.manifests import (
    JsonObject,
    Line,
    ManifestError,
    read_json,
    read_lines,
)
from pipeline.data.corpora.records import RecordReader, is_manifest_header
from pipeline.data.rejects import Reason
from pipeline.data.schema import ClipRow, Reject

_JSON_LINES = (".jsonl", ".ndjson")


class Rows:
    """`*.jsonl`, `*.ndjson` or `*.parquet` with an audio key and labels; see `fields.ROLES`."""

    layout = "rows"

    def matches(self, folder: CorpusFolder) -> bool:
        """Whether such a manifest lies in the folder, and audio below it."""
        return bool(folder.audio) and any(
            is_manifest_header(_keys(folder, name)) for name in _manifests(folder)
        )

    def read(self, folder: CorpusFolder) -> Iterator[ClipRow | Reject]:
        """Every record of every manifest in the folder."""
        reader = RecordReader(folder)
        for name in _manifests(folder):
            folder.claim(name)
            read = _read_json_lines if suffix_of(name) in _JSON_LINES else _read_parquet
            try:
                yield from read(folder, reader, name)
            except ManifestError as error:
                yield folder.reject_manifest(error, name)


def _manifests(folder: CorpusFolder) -> list[str]:
    return folder.having(*_JSON_LINES, ".parquet")


def _keys(folder: CorpusFolder, name: str) -> Sequence[str]:
    """Keys of the first good record."""
    if suffix_of(name) == ".parquet":
        try:
            return list(_open_parquet(folder, name).schema_arrow.names)
        except ManifestError:
            return []
    try:
        for line in read_lines(folder.head(name)):
            if isinstance(line, Line) and line.text.strip():
                with contextlib.suppress(ManifestError):  # the line is a reject when it is read
                    record = read_json(line.text.encode())
                    if isinstance(record, JsonObject):
                        return list(record)
    except ManifestError:
        return []
    return []


def _read_json_lines(
    folder: CorpusFolder, reader: RecordReader, name: str
) -> Iterator[ClipRow | Reject]:
    for entry in json_line_entries(folder, name):
        yield entry if isinstance(entry, Reject) else reader.read(entry.values, entry.place)


def _open_parquet(folder: CorpusFolder, name: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(folder.listing.folder.open(posixpath.join(folder.root, name)))
    except (pa.ArrowInvalid, OSError) as error:
        raise ManifestError(Reason.MALFORMED, f"not Parquet: {error}") from error


def _read_parquet(
    folder: CorpusFolder, reader: RecordReader, name: str
) -> Iterator[ClipRow | Reject]:
    row = 0
    try:
        for batch in _open_parquet(folder, name).iter_batches(1024):
            for record in batch.to_pylist():
                row += 1
                yield reader.read(record, Place(name, row))
    except (pa.ArrowException, OSError) as error:
        raise ManifestError(Reason.MALFORMED, f"not Parquet: {error}", row + 1) from error
    if row == 0:
        raise ManifestError(Reason.EMPTY_MANIFEST, "the manifest holds no row")
