"""Directories and files by URI: a laptop folder and an object store are the same code.

A path without scheme is local. Files appear complete or not at all: written aside and renamed;
object stores show an object once its upload is completed. Transient errors are retried; see
`pipeline/faults.py`. Endpoint and credentials are those of
the environment (`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, ...).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import posixpath
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from pipeline.errors import IncompleteError
from pipeline.faults import SteadyFile, retried, retries

COMPLETE = "_COMPLETE"
"""Marker of a finished directory, written last; holds the SHA-256 of the card."""
CARD = "dataset.json"
"""The card of a finished directory."""
_ASIDE = ".aside-"
_BUFFER_BYTES = 64 * 2**10
_WITHOUT_FOLDERS = frozenset({"s3", "gcs", "abfs"})
"""Types of file systems that are object stores: names need no directory to lie in."""


@dataclass(frozen=True)
class Folder:
    """A directory on any file system pyarrow or fsspec knows.

    Attributes:
        filesystem: File system that holds the directory.
        path: Path on that file system, without scheme.
        uri: URI as the user wrote it; local paths are made absolute.
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
        try:  # S3 asks for the region of the bucket
            filesystem, path = retried(lambda: fs.FileSystem.from_uri(text), f"open {text}")
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

    @retries
    def info(self, name: str = "") -> fs.FileInfo:
        """Type, size and time of a file or directory; its type says if there is none."""
        return self.filesystem.get_file_info(self.join(name) if name else self.path)

    @retries
    def infos(self, *, recursive: bool = False) -> list[fs.FileInfo]:
        """What `info` gives, for the files below; unordered."""
        selector = fs.FileSelector(self.path, allow_not_found=True, recursive=recursive)
        found = self.filesystem.get_file_info(selector)
        return [info for info in found if info.type == fs.FileType.File]

    def exists(self, name: str = "") -> bool:
        """Whether a file or directory of that name is there."""
        return bool(self.info(name).type != fs.FileType.NotFound)

    def files(self, suffix: str = "", *, recursive: bool = False) -> list[str]:
        """Relative names of the files below, sorted; files still written aside are left out."""
        return sorted(name for name in self.sizes(recursive=recursive) if name.endswith(suffix))

    def sizes(self, *, recursive: bool = False) -> dict[str, int]:
        """Sizes in bytes of the files below, by relative name, without those written aside."""
        return {
            posixpath.relpath(info.path, self.path): info.size or 0
            for info in self.infos(recursive=recursive)
            if _ASIDE not in posixpath.basename(info.path)
        }

    def listed(self, prefix: str, suffix: str = "") -> list[str]:
        """Names of the files of a complete directory, out of its card, sorted.

        A directory listing may hold what an abandoned attempt left; the card names what counts.

        Args:
            prefix: Beginning of the names, such as `parts/`.
            suffix: Ending of the names.

        Raises:
            IncompleteError: If the directory is not complete, or its card names no files.
        """
        names = self.card().get("files")
        if names is None:
            raise IncompleteError(f"{self.uri}/{CARD} names no files; run the stage again")
        return sorted(n for n in names if n.startswith(prefix) and n.endswith(suffix))

    def times_ns(self, suffix: str = "") -> list[int]:
        """Modification times, in ns since the epoch, of the files directly in it, unordered."""
        return [info.mtime_ns or 0 for info in self.infos() if info.path.endswith(suffix)]

    def open(self, name: str) -> BinaryIO:
        """A seekable binary reader; transient errors are retried while it reads.

        Raises:
            FileNotFoundError: If there is no such file.
            MachineError: If storage keeps failing; also raised by the reader.
        """
        steady = SteadyFile(
            lambda: self.filesystem.open_input_file(self.join(name)), f"read {self.uri}/{name}"
        )
        return cast(BinaryIO, io.BufferedReader(steady, _BUFFER_BYTES))

    def read_bytes(self, name: str) -> bytes:
        """The whole file."""
        with self.open(name) as stream:
            return stream.read()

    @retries
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

    @retries
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
        try:
            self._write_aside(aside, path, payload)
        except BaseException:  # raised again, without the partial file
            with contextlib.suppress(OSError):
                self.filesystem.delete_file(aside)
            raise

    def _write_aside(self, aside: str, path: str, payload: bytes) -> None:
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
        """Write canonical JSON: equal values give equal bytes."""
        self.write_bytes(name, json_bytes(value))

    @retries
    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """One Parquet file as a table."""
        return pq.read_table(self.join(name), filesystem=self.filesystem, columns=columns)

    @retries
    def delete(self, name: str) -> None:
        """Remove a file if it is there."""
        if self.exists(name):
            self.filesystem.delete_file(self.join(name))

    def sweep(self) -> int:
        """Remove the temporary files of killed writers; returns their number."""
        aside = [
            posixpath.relpath(info.path, self.path)
            for info in self.infos(recursive=True)
            if posixpath.basename(info.path).startswith(_ASIDE)
        ]
        for name in aside:
            self.delete(name)
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

    @property
    def digest(self) -> str:
        """Digest of a complete directory.

        Raises:
            IncompleteError: If the directory is not complete.
        """
        self.card()
        return self.read_bytes(COMPLETE).decode().strip()

    def card(self, stage: str | None = None) -> dict[str, Any]:
        """The card of a complete directory.

        Args:
            stage: The stage that must have written it; None takes any.

        Raises:
            IncompleteError: If the directory is missing, not complete, or of another stage.
        """
        if not self.is_complete:
            state = "is not complete" if self.exists() else "does not exist"
            remedy = f"`audiocalm {stage}`" if stage else "the stage that writes it"
            raise IncompleteError(
                f"{self.uri} {state}: its {COMPLETE} marker and {CARD} must be there and agree; "
                f"run {remedy}"
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
    """fsspec's file systems for pyarrow; moves files also where pyarrow's own handler cannot.

    fsspec's `exists`, `isfile` and `find` take a request that fails for a file that is not there.
    """

    def _type(self, path: str) -> str | None:
        try:
            return str(self.fs.info(path)["type"])
        except FileNotFoundError:
            return None

    def get_file_info_selector(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        """List a directory."""
        kind = self._type(selector.base_dir)
        if kind is None and selector.allow_not_found:
            return []
        if kind is None:
            raise FileNotFoundError(selector.base_dir)
        if kind != "directory" and not self.fs.isdir(selector.base_dir):
            raise NotADirectoryError(selector.base_dir)
        infos, pending = [], [selector.base_dir]
        while pending:
            folder = pending.pop()
            for info in self._list(folder):
                if info["name"].strip("/") != folder.strip("/"):
                    infos.append(self._create_file_info(info["name"], info))
                    if selector.recursive and info["type"] == "directory":
                        pending.append(info["name"])
        return infos

    def _list(self, folder: str) -> list[dict[str, Any]]:
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            found: list[dict[str, Any]] = retried(
                lambda: self.fs.ls(folder, detail=True), f"list {folder}"
            )
            return found
        return []

    def open_input_file(self, path: str) -> pa.PythonFile:
        """Open a file for reading."""
        if self._type(path) != "file":
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return pa.PythonFile(self.fs.open(path, mode="rb"), mode="r")

    open_input_stream = open_input_file

    def delete_file(self, path: str) -> None:
        """Remove a file."""
        self.fs.rm_file(path)

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
        if self._type(src) is not None:
            self.fs.rm_file(dest)
            self.fs.mv(src, dest)


def _from_fsspec(uri: str, cause: Exception) -> tuple[fs.FileSystem, str]:
    import fsspec

    try:
        backend, path = fsspec.core.url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise ValueError(f"no file system for {uri}: {cause}; {error}") from error
    return fs.PyFileSystem(_FsspecHandler(backend)), path
