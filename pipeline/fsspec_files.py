"""fsspec's file systems, as pyarrow's interface knows file systems."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Any

import pyarrow as pa
from pyarrow import fs

from pipeline.faults import retried


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


def from_fsspec(uri: str, cause: Exception) -> tuple[fs.FileSystem, str]:
    """File system and path of a URI that pyarrow does not know.

    Args:
        uri: The URI.
        cause: Why pyarrow does not know it.

    Raises:
        ValueError: If fsspec does not know it either.
    """
    import fsspec

    try:
        backend, path = fsspec.core.url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise ValueError(f"no file system for {uri}: {cause}; {error}") from error
    return fs.PyFileSystem(_FsspecHandler(backend)), path
