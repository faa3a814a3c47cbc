"""Every file below an input directory once, with the size and time that show a change."""

from __future__ import annotations

import os
import posixpath
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import quote

from pyarrow import fs

from pipeline.data.corpora.file_table import FileFact, FileTable
from pipeline.data.rejects import Reason
from pipeline.errors import SettingsError
from pipeline.faults import retried, retries
from pipeline.storage import Folder

_LITTER_FOLDERS = frozenset(
    (
        *(".git", ".svn", ".hg", "__pycache__", ".ipynb_checkpoints"),
        *("__MACOSX", ".AppleDouble", ".DocumentRevisions-V100", ".Spotlight-V100"),
        *(".TemporaryItems", ".Trashes", ".fseventsd", "@eaDir", "#recycle"),
        *("$RECYCLE.BIN", "System Volume Information"),
    )
)
"""Directories of systems and tools, which are never read."""
_LITTER_FILES = frozenset(
    (".DS_Store", ".localized", "Icon\r", "Thumbs.db", "ehthumbs.db", "desktop.ini", ".directory")
)
"""Files that operating systems create."""
_APPLE_DOUBLE = "._"  # what a Mac writes beside each file on a foreign disk or in an archive


@dataclass
class Listing:
    """The files below a directory.

    Attributes:
        folder: The directory.
        files: Facts by name relative to it.
        faults: What could not be listed: printable name, reason, detail.
        litter: What systems and tools left, counted by kind: folders, which end in a slash and
            are not looked into, and files.
    """

    folder: Folder
    files: FileTable = field(default_factory=FileTable)
    faults: list[tuple[str, Reason, str]] = field(default_factory=list)
    litter: Counter[str] = field(default_factory=Counter)

    def uri(self, name: str) -> str:
        """Location of a listed file: a local path as it is, anything else percent-encoded."""
        top = self.folder.uri
        return posixpath.join(top, quote(name) if "://" in top else name).rstrip("/")


def litter_of(path: str) -> str | None:
    """The kind of litter that a file is, or the folder of litter in it; None for other files."""
    *parents, name = path.split("/")
    folder = next((part for part in parents if part in _LITTER_FOLDERS), None)
    if folder is not None:
        return f"{folder}/"
    if name.startswith(_APPLE_DOUBLE):
        return f"{_APPLE_DOUBLE}*"
    return name if name in _LITTER_FILES else None


def walk(folder: Folder, skip: frozenset[str] = frozenset()) -> Listing:
    """List a directory with everything below it.

    Links are followed; a link back to a directory above is reported, not followed.

    Args:
        folder: The directory.
        skip: Absolute paths of directories to leave out.

    Raises:
        SettingsError: If the directory does not exist.
    """
    info = folder.info()
    if info.type != fs.FileType.Directory:
        state = "is not a directory" if info.type == fs.FileType.File else "does not exist"
        raise SettingsError(f"input {folder.uri} {state}; give the directory of a corpus")
    listing = Listing(folder)
    found = _walk_local if folder.is_local else _walk_remote
    listing.files = FileTable(found(listing, skip))
    return listing


def _walk_remote(listing: Listing, skip: frozenset[str]) -> Iterator[tuple[str, FileFact]]:
    folder = listing.folder
    folders: set[str] = set()
    for info in folder.infos(recursive=True):
        name = posixpath.relpath(info.path, folder.path)
        is_skipped = any(info.path.startswith(path + "/") for path in skip)
        litter = litter_of(name)
        if litter is None and not is_skipped:
            yield name, FileFact(info.size or 0, info.mtime_ns or 0)
        elif litter is not None and litter.endswith("/"):
            folders.add(name[: f"/{name}".index(f"/{litter}") + len(litter)])
        elif litter is not None:
            listing.litter[litter] += 1
    listing.litter.update(f"{posixpath.basename(path[:-1])}/" for path in folders)


def _walk_local(listing: Listing, skip: frozenset[str]) -> Iterator[tuple[str, FileFact]]:
    root = listing.folder.path
    pending: list[tuple[str, tuple[str, ...]]] = [("", (os.path.realpath(root),))]
    while pending:
        prefix, above = pending.pop()
        try:
            entries = _entries(os.path.join(root, prefix))
        except OSError as error:
            _fault(listing, prefix, Reason.NOT_A_FILE, f"cannot be listed: {error.strerror}")
            continue
        for entry in entries:
            name = posixpath.join(prefix, entry.name)
            if not _is_text(name):
                _fault(listing, name, Reason.BAD_NAME, "the name is not valid UTF-8; rename it")
                continue
            try:
                status = retried(entry.stat, f"list {entry.path}")
            except OSError as error:
                _fault(listing, name, Reason.NOT_A_FILE, f"cannot be read: {error.strerror}")
                continue
            if stat.S_ISREG(status.st_mode):
                litter = litter_of(name)
                if litter is None:
                    yield name, FileFact(status.st_size, status.st_mtime_ns)
                else:
                    listing.litter[litter] += 1
            elif stat.S_ISDIR(status.st_mode):
                real = os.path.realpath(entry.path)
                if real in above:
                    _fault(listing, name, Reason.NOT_A_FILE, "a link to a directory above it")
                elif entry.name in _LITTER_FOLDERS:
                    listing.litter[f"{entry.name}/"] += 1
                elif entry.path not in skip:
                    pending.append((name, (*above, real)))
            else:
                _fault(listing, name, Reason.NOT_A_FILE, "neither a file nor a directory")


@retries
def _entries(path: str) -> list[os.DirEntry[str]]:
    with os.scandir(path) as found:
        return sorted(found, key=lambda entry: entry.name)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _fault(listing: Listing, name: str, reason: Reason, detail: str) -> None:
    printable = os.fsencode(name).decode(errors="backslashreplace")
    listing.faults.append((printable, reason, detail))
