"""Every file below an input directory, once, with what tells a changed file from an old one."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from pyarrow import fs

from pipeline.data.rejects import Reason
from pipeline.errors import SettingsError
from pipeline.faults import retried, retries
from pipeline.storage import Folder

_COMMON = "wav flac ogg oga opus mp3 m4a mp4 aac webm mka aiff aif aifc"
_RARE = "au snd caf w64 rf64 wma amr sph"
AUDIO_SUFFIXES = frozenset(f".{name}" for name in f"{_COMMON} {_RARE}".split())
"""Endings of names taken for audio; what a file is, its contents decide later."""
MANIFEST_SUFFIXES = frozenset([".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".srt"])
"""Endings of names taken for manifests: one that no layout reads is reported."""
NOT_CORPUS = frozenset({".git", "__pycache__"})
"""Directories that are never looked into."""


@dataclass(frozen=True)
class FileFact:
    """Size and modification time of a file."""

    size_bytes: int
    mtime_ns: int


@dataclass
class Listing:
    """The files below a directory.

    Attributes:
        folder: The directory.
        files: Facts by name relative to it, in sorted order.
        faults: What could not be listed: printable name, reason, detail.
    """

    folder: Folder
    files: dict[str, FileFact]
    faults: list[tuple[str, Reason, str]] = field(default_factory=list)


def suffix_of(name: str) -> str:
    """Lower-case ending of a name, with the dot; empty if it has none."""
    return posixpath.splitext(name)[1].lower()


def is_audio_name(name: str) -> bool:
    """Whether the ending says audio."""
    return suffix_of(name) in AUDIO_SUFFIXES


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
    listing = Listing(folder, {})
    found = _walk_local if folder.is_local else _walk_remote
    files = dict(found(listing, skip))
    listing.files = {name: files[name] for name in sorted(files)}
    return listing


def _walk_remote(listing: Listing, skip: frozenset[str]) -> Iterator[tuple[str, FileFact]]:
    folder = listing.folder
    for info in folder.infos(recursive=True):
        name = posixpath.relpath(info.path, folder.path)
        is_skipped = any(info.path.startswith(path + "/") for path in skip)
        if not is_skipped:
            yield name, FileFact(info.size or 0, info.mtime_ns or 0)


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
                yield name, FileFact(status.st_size, status.st_mtime_ns)
            elif stat.S_ISDIR(status.st_mode):
                real = os.path.realpath(entry.path)
                if real in above:
                    _fault(listing, name, Reason.NOT_A_FILE, "a link to a directory above it")
                elif entry.path not in skip and entry.name not in NOT_CORPUS:
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
