"""Audio that lies inside other files: members of tars, cells of Arrow and Parquet tables.

The address of such audio is the file's, `#`, and the name inside: `archive.tar#deep/a.mp3`,
`train.arrow#audio/17` for row 17 of the column `audio`.
"""

from __future__ import annotations

import contextlib
import posixpath
import re
import tarfile
import threading
from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.storage import Folder

TABLE_SUFFIXES = (".arrow", ".parquet")
"""Endings of tables that may hold audio in their cells."""
_MEMBER = re.compile(r"^(?P<file>.+\.(?:tar|arrow|parquet))#(?P<member>.+)$", re.DOTALL)
_ARROW_FILE_MAGIC = b"ARROW1"
_ROWS = 16  # of a Parquet file decoded together: what a cell costs in memory
_NEAR = 64  # rows ahead that are reached by reading on; farther ones by opening the file again


def split_member(uri: str) -> tuple[str, str] | None:
    """File and name inside it, of an address that has both."""
    match = _MEMBER.match(uri)
    return (match["file"], match["member"]) if match else None


def read_member(file: str, member: str) -> bytes:
    """The bytes of a tar member or table cell.

    Args:
        file: Path or URI of the tar or table.
        member: Name of the tar member, or `column/row`.

    Raises:
        FileNotFoundError: If there is no such file, member or row, or the cell is empty.
        OSError: If the file cannot be read, or is damaged.
    """
    folder, name = parent_of(file)
    info = folder.info(name)
    if not name.endswith(TABLE_SUFFIXES):
        span = _members(file, info.size, info.mtime_ns).get(member)
        if span is None:
            raise FileNotFoundError(f"{file} has no member {member}")
        return folder.read_range(name, *span)
    column, _, row = member.rpartition("/")
    if not column or not row.isdecimal():
        raise FileNotFoundError(f"{member!r} is not column/row")
    return _column(file, column, info.size, info.mtime_ns).cell(int(row))


def parent_of(uri: str) -> tuple[Folder, str]:
    """Directory and name of a file; a URI with a scheme is percent-encoded."""
    scheme, mark, rest = uri.partition("://")
    if not mark:
        return Folder.at(posixpath.dirname(uri)), posixpath.basename(uri)
    authority, _, path = rest.partition("/")
    parent, _, name = unquote(path).rpartition("/")
    return _authority(f"{scheme}://{authority}").child(parent), name


def table_schema(folder: Folder, name: str) -> pa.Schema:
    """Columns and metadata of an Arrow or Parquet table.

    Raises:
        OSError: If the file cannot be read, or is no table.
    """
    try:
        with folder.open(name) as source:
            if name.endswith(".parquet"):
                return pq.ParquetFile(source).schema_arrow
            return _arrow_reader(source).schema
    except pa.ArrowException as error:
        raise OSError(f"not a table: {error}") from error


def table_batches(
    folder: Folder, name: str, columns: list[str] | None = None, first_row: int = 0
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Rows of an Arrow or Parquet table, in batches, each with the number of its first row.

    Args:
        folder: Directory of the table.
        name: Name of the table in the folder.
        columns: Columns to decode, nested ones as `column.field`; Arrow always gives all.
        first_row: The first batch holds it; Parquet does not decode what comes before.

    Raises:
        OSError: If the file cannot be read, or is damaged.
    """
    try:
        if name.endswith(".parquet"):
            yield from _parquet_batches(folder, name, columns, first_row)
        else:
            yield from _arrow_batches(folder, name, first_row)
    except pa.ArrowException as error:
        raise OSError(f"not a table: {error}") from error


def _arrow_batches(
    folder: Folder, name: str, first_row: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    with pa.memory_map(folder.join(name)) if folder.is_local else folder.open(name) as source:
        reader = _arrow_reader(source)
        if isinstance(reader, pa.ipc.RecordBatchFileReader):
            batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
        else:
            batches = iter(reader)
        row = 0
        for batch in batches:
            if row + batch.num_rows > first_row:
                yield row, batch
            row += batch.num_rows


def _arrow_reader(
    source: pa.NativeFile,
) -> pa.ipc.RecordBatchFileReader | pa.ipc.RecordBatchStreamReader:
    is_file = source.read(len(_ARROW_FILE_MAGIC)) == _ARROW_FILE_MAGIC
    source.seek(0)
    return pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)


def _parquet_batches(
    folder: Folder, name: str, columns: list[str] | None, first_row: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    with folder.open(name) as source:
        table = pq.ParquetFile(source)
        row = 0
        for group in range(table.metadata.num_row_groups):
            end = row + table.metadata.row_group(group).num_rows
            if end > first_row:
                for batch in table.iter_batches(_ROWS, row_groups=[group], columns=columns):
                    if row + batch.num_rows > first_row:
                        yield row, batch
                    row += batch.num_rows
            row = end


class _Column:
    """The bytes in one column of a table, read with little cost in the order of its rows.

    The batch in hand and the one before stay, for threads that read rows nearly in order.
    """

    def __init__(self, folder: Folder, name: str, column: str) -> None:
        self._folder, self._name, self._column = folder, name, column
        self._lock = threading.Lock()
        self._batches: Iterator[tuple[int, pa.RecordBatch]] = iter(())
        self._kept: list[tuple[int, pa.Array]] = []

    def cell(self, row: int) -> bytes:
        """The bytes of a row.

        Raises:
            FileNotFoundError: If there is no such row, or it is empty.
            OSError: If the file cannot be read, or is damaged.
        """
        with self._lock, self._starting_afresh():
            if not self._kept or not self._kept[0][0] <= row < self._end() + _NEAR:
                self._kept = []
                self._batches = table_batches(self._folder, self._name, [self._column], row)
            while row >= self._end():
                following = next(self._batches, None)
                if following is None:
                    raise FileNotFoundError(f"{self._name} has no row {row}")
                self._kept = [*self._kept[-1:], (following[0], self._bytes(following[1]))]
            first, cells = next(kept for kept in reversed(self._kept) if kept[0] <= row)
            value = cells[row - first].as_py()
        if not isinstance(value, bytes):
            raise FileNotFoundError(f"row {row} of {self._name} has no bytes in {self._column!r}")
        return value

    @contextlib.contextmanager
    def _starting_afresh(self) -> Iterator[None]:
        """Open the table again after an error: a failed iterator looks exhausted."""
        try:
            yield
        except BaseException:  # raised again
            self._kept = []
            raise

    def _end(self) -> int:
        return self._kept[-1][0] + len(self._kept[-1][1]) if self._kept else 0

    def _bytes(self, batch: pa.RecordBatch) -> pa.Array:
        if self._column not in batch.schema.names:
            raise FileNotFoundError(f"{self._name} has no column {self._column!r}")
        cells = batch.column(self._column)
        return cells.field("bytes") if pa.types.is_struct(cells.type) else cells


@lru_cache(maxsize=4)
def _column(file: str, column: str, _size: int | None, _mtime_ns: int | None) -> _Column:
    return _Column(*parent_of(file), column)


@lru_cache(maxsize=4)
def _members(tar: str, _size: int | None, _mtime_ns: int | None) -> dict[str, tuple[int, int]]:
    """Offset and size of every member; size and time of the tar keep the cache honest."""
    folder, name = parent_of(tar)
    try:
        with folder.open(name) as stream, tarfile.open(fileobj=stream) as archive:
            return {item.name: (item.offset_data, item.size) for item in archive if item.isfile()}
    except tarfile.TarError as error:
        raise OSError(f"not a tar: {error}") from error


@lru_cache(maxsize=16)
def _authority(uri: str) -> Folder:
    """The root of a bucket or host, connected once a process."""
    return Folder.at(uri if not uri.startswith("file://") else "/")
