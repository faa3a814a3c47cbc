"""Directories and files by URI: a laptop folder and an object store are the same code.

A path without scheme is local. Files appear complete or not at all: written aside and renamed;
object stores show an object once its upload is completed. Endpoint and credentials are those of
the environment (`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, ...).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import posixpath
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from pipeline.errors import IncompleteError

COMPLETE = "_COMPLETE"
"""Marker of a finished directory, written last; holds the SHA-256 of the card."""
CARD = "dataset.json"
"""The card of a finished directory."""
_ASIDE = ".aside-"
_WITHOUT_FOLDERS = frozenset({"s3", "gcs", "abfs"})
"""Types of file systems that are object stores: names need no directory to lie in."""


@dataclass(frozen=True)
class Folder:
    """A directory on any file system pyarrow or fsspec knows.

    Attributes:
        filesystem: Where it lies.
        path: Its path there, without scheme.
        uri: As the user wrote it; local paths made absolute.
    """

    filesystem: fs.FileSystem
    path: str
    uri: str

    @classmethod
    def at(cls, uri: str | os.PathLike[str]) -> Folder:
        """Open a directory by URI or local path; it need not exist.

        Raises:
            ValueError: If no file system handles the scheme.
        """
        text = os.fspath(uri)
        if "://" not in text:
            path = os.path.abspath(os.path.expanduser(text))
            return cls(fs.LocalFileSystem(), path, path)
        try:
            filesystem, path = fs.FileSystem.from_uri(text)
        except pa.ArrowInvalid as error:
            filesystem, path = _from_fsspec(text, error)
        return cls(filesystem, path.rstrip("/"), text.rstrip("/"))

    @property
    def is_local(self) -> bool:
        """Whether ordinary file calls reach it."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def child(self, *names: str) -> Folder:
        """A directory below this one."""
        return Folder(
            self.filesystem, posixpath.join(self.path, *names), posixpath.join(self.uri, *names)
        )

    def join(self, name: str) -> str:
        """Path of a file below this directory, on its file system."""
        return posixpath.join(self.path, name)

    def exists(self, name: str = "") -> bool:
        """Whether a file or directory of that name is there."""
        info = self.filesystem.get_file_info(self.join(name) if name else self.path)
        return bool(info.type != fs.FileType.NotFound)

    def files(self, suffix: str = "", *, recursive: bool = False) -> list[str]:
        """Relative names of the files below, sorted; files still written aside are left out."""
        selector = fs.FileSelector(self.path, allow_not_found=True, recursive=recursive)
        names = [
            posixpath.relpath(info.path, self.path)
            for info in self.filesystem.get_file_info(selector)
            if info.type == fs.FileType.File and info.path.endswith(suffix)
        ]
        return sorted(name for name in names if _ASIDE not in posixpath.basename(name))

    def times_ns(self, suffix: str = "") -> list[int]:
        """When the files directly in it were last written, nanoseconds; unordered."""
        selector = fs.FileSelector(self.path, allow_not_found=True)
        return [
            info.mtime_ns or 0
            for info in self.filesystem.get_file_info(selector)
            if info.type == fs.FileType.File and info.path.endswith(suffix)
        ]

    def open(self, name: str) -> BinaryIO:
        """A seekable binary reader.

        Raises:
            FileNotFoundError: If there is no such file.
        """
        return self.filesystem.open_input_file(self.join(name))

    def read_bytes(self, name: str) -> bytes:
        """The whole file."""
        with self.open(name) as stream:
            return stream.read()

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`."""
        with self.filesystem.open_input_file(self.join(name)) as stream:
            return bytes(stream.read_at(size, offset))

    def read_json(self, name: str) -> Any:
        """The file as JSON.

        Raises:
            IncompleteError: If it is not valid JSON.
        """
        try:
            return json.loads(self.read_bytes(name))
        except ValueError as error:
            raise IncompleteError(f"{self.uri}/{name} is not valid JSON: {error}") from error

    def write_bytes(self, name: str, payload: bytes) -> None:
        """Write a file so that it appears complete or not at all."""
        path = self.join(name)
        if self.filesystem.type_name in _WITHOUT_FOLDERS:
            # No `with`: it would complete the upload of a part when writing fails.
            stream = self.filesystem.open_output_stream(path)
            stream.write(payload)
            stream.close()
            return
        parent, base = posixpath.split(path)
        self.filesystem.create_dir(parent, recursive=True)
        aside = posixpath.join(parent, f"{_ASIDE}{uuid.uuid4().hex}-{base[-80:]}")
        if self.is_local:
            with open(aside, "wb") as file:
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        else:
            with self.filesystem.open_output_stream(aside) as stream:
                stream.write(payload)
            self.filesystem.move(aside, path)

    def write_json(self, name: str, value: Any) -> None:
        """Write JSON in a form that is the same bytes for the same value."""
        self.write_bytes(name, json_bytes(value))

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """One Parquet file as a table."""
        return pq.read_table(self.join(name), filesystem=self.filesystem, columns=columns)

    def delete(self, name: str) -> None:
        """Remove a file if it is there."""
        if self.exists(name):
            self.filesystem.delete_file(self.join(name))

    def sweep(self) -> int:
        """Remove what killed writers left aside; returns how many files."""
        selector = fs.FileSelector(self.path, allow_not_found=True, recursive=True)
        aside = [
            info.path
            for info in self.filesystem.get_file_info(selector)
            if info.type == fs.FileType.File and posixpath.basename(info.path).startswith(_ASIDE)
        ]
        for path in aside:
            self.filesystem.delete_file(path)
        return len(aside)

    def finish(self, card: dict[str, Any]) -> None:
        """Write the card, then the marker: from now on the directory is complete."""
        payload = json_bytes(card)
        self.write_bytes(CARD, payload)
        self.write_bytes(COMPLETE, sha256(payload).encode() + b"\n")

    def reopen(self) -> None:
        """Take the completion marker away before the contents change."""
        self.delete(COMPLETE)

    @property
    def is_complete(self) -> bool:
        """Whether card and marker are there and agree."""
        if not (self.exists(COMPLETE) and self.exists(CARD)):
            return False
        return self.read_bytes(COMPLETE).decode().strip() == sha256(self.read_bytes(CARD))

    def card(self, stage: str | None = None) -> dict[str, Any]:
        """The card of a complete directory.

        Args:
            stage: The stage that must have written it; None takes any.

        Raises:
            IncompleteError: If the directory is missing, not complete, or of another stage.
        """
        if not self.is_complete:
            state = "is not complete" if self.exists() else "does not exist"
            raise IncompleteError(
                f"{self.uri} {state}: its {COMPLETE} marker and {CARD} must be there and agree; "
                "run the stage that writes it"
            )
        card: dict[str, Any] = self.read_json(CARD)
        if stage is not None and card.get("stage", stage) != stage:
            raise IncompleteError(
                f"{self.uri} is the output of `{card['stage']}`; "
                f"give a directory that `{stage}` wrote"
            )
        return card


def json_bytes(value: Any) -> bytes:
    """Canonical JSON, readable, ending in a newline; NaN is refused."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def sha256(payload: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(payload).hexdigest()


def table_bytes(table: pa.Table) -> bytes:
    """A table as Parquet; the same bytes for the same table and pyarrow version."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def read_tables(folder: Folder, names: list[str], columns: list[str] | None = None) -> pa.Table:
    """Several Parquet files as one table, in the order given."""
    if not names:
        raise IncompleteError(f"{folder.uri} holds no Parquet files")
    return pa.concat_tables([folder.read_table(name, columns) for name in names])


def iter_rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Rows of a table, one batch in memory as Python objects at a time."""
    for batch in table.to_batches(max_chunksize=1024):
        yield from batch.to_pylist()


class _FsspecHandler(fs.FSSpecHandler):
    """fsspec's file systems for pyarrow; moves files also where pyarrow's own handler cannot."""

    def move(self, src: str, dest: str) -> None:
        """Rename a file, in place of one that is there.

        SFTP takes no `recursive`; SMB refuses to replace a file, WebHDFS does not say that it did.
        """
        try:
            self.fs.mv(src, dest)
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise
        self.fs.invalidate_cache()
        if self.fs.exists(src):
            self.fs.rm_file(dest)
            self.fs.mv(src, dest)


def _from_fsspec(uri: str, cause: Exception) -> tuple[fs.FileSystem, str]:
    import fsspec

    try:
        backend, path = fsspec.core.url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise ValueError(f"no file system for {uri}: {cause}; {error}") from error
    return fs.PyFileSystem(_FsspecHandler(backend)), path
