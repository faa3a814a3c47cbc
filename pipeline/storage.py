"""Directories and files by URI: a laptop folder and an object store are the same code.

A path without scheme is local. Files appear complete or not at all: written aside and renamed;
object stores show an object once its upload is completed. Transient errors are retried; see
`pipeline/faults.py`. Endpoint and credentials are those of
the environment (`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, ...).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import posixpath
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from pipeline.errors import IncompleteError
from pipeline.faults import SteadyFile, retried, retries
from pipeline.fsspec_files import from_fsspec

COMPLETE = "_COMPLETE"
"""Marker of a finished directory, written last; holds the SHA-256 of the card."""
CARD = "dataset.json"
"""The card of a finished directory."""
FILE_LIST = "files.parquet"
"""Names and SHA-256 digests of the files of a finished directory; the card holds its digest."""
ASIDE = ".aside-"
"""Beginning of the names of files that are not whole yet; `sweep` removes what is left of them."""
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
            filesystem, path = from_fsspec(text, error)
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
            if ASIDE not in posixpath.basename(info.path)
        }

    def listed(self, prefix: str = "", suffix: str = "") -> list[str]:
        """Names of the files of a complete directory; see `file_digests`."""
        return list(self.file_digests(prefix, suffix))

    def file_digests(self, prefix: str = "", suffix: str = "") -> dict[str, str]:
        """SHA-256 digests of the files of a complete directory by name, in sorted order.

        A directory listing may hold what an abandoned attempt left; the list that the card names by
        its digest holds what counts.

        Args:
            prefix: Beginning of the names, such as `parts/`.
            suffix: Ending of the names.

        Raises:
            IncompleteError: If the directory is not complete, its card names no files, or their
                list is missing or damaged.
        """
        card = self.card()
        if "files" in card:  # earlier versions
            digests = sorted(card["files"].items())
            return {n: d for n, d in digests if n.startswith(prefix) and n.endswith(suffix)}
        if "file_list" not in card:
            raise IncompleteError(f"{self.uri}/{CARD} names no files; run the stage again")
        entry = card["file_list"]
        payload = self.read_bytes(entry["name"]) if self.exists(entry["name"]) else b""
        if sha256(payload) != entry["sha256"]:
            raise IncompleteError(
                f"{self.uri}/{entry['name']} is missing or not the list of files that {CARD} names "
                "by its digest; restore it, or run the stage again"
            )
        table = pq.read_table(pa.BufferReader(payload))
        is_wanted = pc.and_(
            pc.starts_with(table["name"], prefix), pc.ends_with(table["name"], suffix)
        )
        table = table.filter(is_wanted)
        return dict(zip(table["name"].to_pylist(), table["sha256"].to_pylist(), strict=True))

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
        aside = posixpath.join(parent, f"{ASIDE}{uuid.uuid4().hex}-{base[-80:]}")
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
            if posixpath.basename(info.path).startswith(ASIDE)
        ]
        for name in aside:
            self.delete(name)
        return len(aside)

    def finish(
        self, card: dict[str, Any], digests: Iterable[tuple[str, str]] | None = None
    ) -> None:
        """Write the card, then the marker: from now on the directory is complete.

        Args:
            card: What the directory is.
            digests: Names and SHA-256 digests of its files, which go to a list that the card names.
        """
        if digests is not None:
            table = _file_table(digests)
            listed = table_bytes(table)
            self.write_bytes(FILE_LIST, listed)
            entry = {"name": FILE_LIST, "sha256": sha256(listed), "count": table.num_rows}
            card = card | {"file_list": entry}
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


def _file_table(digests: Iterable[tuple[str, str]]) -> pa.Table:
    """Names and digests, sorted by name; Python holds a few at a time."""
    schema = pa.schema([("name", pa.string()), ("sha256", pa.string())])
    rows = iter(digests)
    batches = []
    while batch := list(islice(rows, 1024)):
        names, values = zip(*batch, strict=True)
        batches.append(pa.record_batch([pa.array(names), pa.array(values)], schema=schema))
    return pa.Table.from_batches(batches, schema).combine_chunks().sort_by("name")


def read_tables(folder: Folder, names: list[str], columns: list[str] | None = None) -> pa.Table:
    """Several Parquet files as one table, in the order given."""
    if not names:
        raise IncompleteError(f"{folder.uri} holds no Parquet files")
    return pa.concat_tables([folder.read_table(name, columns) for name in names])


def iter_rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Rows of a table, one batch in memory as Python objects at a time."""
    for batch in table.to_batches(max_chunksize=1024):
        yield from batch.to_pylist()
