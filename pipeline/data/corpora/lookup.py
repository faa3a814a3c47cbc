"""Resolution of the audio paths that manifests contain, which never leave the corpus folder."""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from urllib.parse import unquote

from pipeline.data.corpora.file_names import stem_of
from pipeline.data.corpora.file_table import Names
from pipeline.data.corpora.manifests import ManifestError
from pipeline.data.rejects import Reason

_ELSEWHERE = re.compile(r"[A-Za-z]:[/\\]|[A-Za-z][A-Za-z0-9+.-]+://")


class AudioIndex:
    """The files of a corpus, by every form in which a manifest may name them.

    Args:
        names: Names relative to the corpus folder.
        uri: The corpus folder, for manifests that write absolute paths into it.

    Attributes:
        moved: Folders that absolute paths begin with and that are not here, with the number of
            paths that were found by the rest: the corpus was moved.
    """

    def __init__(self, names: Names, uri: str) -> None:
        self._names = names
        self._uri = uri
        self.moved: Counter[str] = Counter()
        self._moved_to = names.table.map()

    def find(self, reference: str, near: str = "") -> tuple[str, str | None]:
        """The file that a manifest means.

        Tried in this order, each first as a path below `near` or the corpus folder and then as the
        end of exactly one file's path: as written; without the ending of the file's name; with
        another ending; in another Unicode form. An absolute path to elsewhere must end in the
        whole path of a file below the corpus folder, or below the folder of all its audio.

        Args:
            reference: Path or name as written, with or without ending.
            near: Directory of the manifest, relative to the corpus.

        Returns:
            The name, and a note if the file is not called as written.

        Raises:
            ManifestError: If there is none, or more than one, or it would lie outside.
        """
        local = self._local(reference)
        is_elsewhere = _is_absolute(local)
        paths = self._ends(local, near) if is_elsewhere else self._paths_inside(local, near)
        for form, of_name, is_as_written in (
            (str, str, True),
            (str, stem_of, True),
            (stem_of, stem_of, False),
            (_unicode_form, _unicode_form, False),
        ):
            wanted = [form(path) for path in paths]
            matches = self._at(wanted, of_name)
            if not matches and not is_elsewhere:
                matches = self._ending_in(wanted, of_name)
            if len(matches) > 1:
                listed = ", ".join(map(repr, sorted(matches)[:4]))
                raise ManifestError(
                    Reason.AMBIGUOUS_AUDIO, f"{reference!r} could be any of {listed}"
                )
            if matches and is_elsewhere:
                self._note_move(local, matches[0])
            if matches:
                note = None if is_as_written else f"file: {reference!r} is {matches[0]!r} on disk"
                return matches[0], note
        if is_elsewhere and not any(local.startswith(f"{folder}/") for folder in self.moved):
            raise _outside(reference)
        raise ManifestError(Reason.MISSING_AUDIO, self._missing(reference))

    def _local(self, reference: str) -> str:
        """The reference below the corpus folder, if it is written with it; else as it is."""
        if not reference.strip():
            raise ManifestError(Reason.MISSING_VALUE, "the row names no audio file")
        for root in self._roots:
            if reference.startswith(root):
                return reference.removeprefix(root)
        text = reference.strip()
        if text.startswith("file://"):
            text = unquote(text.removeprefix("file://"))
        return text.replace("\\", "/") if _is_absolute(text) else reference

    @cached_property
    def _roots(self) -> list[str]:
        """Prefixes of paths into the corpus folder: its own path, and the target of links."""
        paths = [self._uri] if "://" in self._uri else [self._uri, os.path.realpath(self._uri)]
        return [path.rstrip("/") + "/" for path in paths]

    def _ends(self, path: str, near: str) -> list[str]:
        """Candidate names for an absolute path, those of its longest suffix first."""
        parts = [part for part in posixpath.normpath(path).split("/") if part]
        ends = ["/".join(parts[at:]) for at in range(len(parts))]
        bases = list(dict.fromkeys(["", near, *self._bases]))
        return [posixpath.join(base, end) for end in ends for base in bases]

    @cached_property
    def _bases(self) -> list[str]:
        """The folder that holds all audio, and those that it lies in."""
        parts = _common_folder(self._names.audio).split("/")
        return ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]

    def _note_move(self, path: str, name: str) -> None:
        """Count a path under the folder that stood where the corpus is now."""
        theirs, ours = path.split("/"), name.split("/")
        while theirs and ours and _unicode_form(theirs[-1]) == _unicode_form(ours[-1]):
            theirs.pop()
            ours.pop()
        first = self._moved_to.setdefault(name, path)
        if first != path and len(theirs) + 1 >= len(path.split("/")):
            raise ManifestError(
                Reason.AMBIGUOUS_AUDIO,
                f"{path!r} and {first!r} share nothing but their last part with {name!r}",
            )
        self.moved["/".join(theirs) or "/"] += 1

    def _paths_inside(self, local: str, near: str) -> list[str]:
        paths = [posixpath.normpath(posixpath.join(base, local)) for base in (near, "")]
        inside = [path for path in paths if not path.startswith(("/", "../")) and path != ".."]
        if not inside:
            raise _outside(local)
        variants = [*inside, *(path.strip() for path in inside)]
        return list(dict.fromkeys([*variants, *(p.replace("\\", "/") for p in variants)]))

    def _missing(self, reference: str) -> str:
        near = [
            name for name in self._names.audio.like_last(reference) if _is_folded(name, reference)
        ]
        hint = f"; {near[0]!r} differs in upper and lower case" if near else ""
        return f"no audio file {reference!r} in the corpus folder{hint}"

    def _at(self, paths: Sequence[str], of_name: Callable[[str], str]) -> list[str]:
        """Files of which a form of the name is the first path that any is at."""
        if of_name is str:
            return next(([path] for path in paths if path in self._names), [])
        found = ((path, self._names.audio.like_path(path)) for path in paths)
        return _first([name for name in names if of_name(name) == path] for path, names in found)

    def _ending_in(self, paths: Sequence[str], of_name: Callable[[str], str]) -> list[str]:
        """Files of which a form of the name ends in the first path that any ends in."""
        names = self._names if of_name is str else self._names.audio
        return _first(
            [name for name in names.like_last(path) if f"/{of_name(name)}".endswith(f"/{path}")]
            for path in paths
        )


def _first(lists: Iterable[list[str]]) -> list[str]:
    return next(filter(None, lists), [])


def _common_folder(names: Iterable[str]) -> str:
    """The innermost directory that all names lie in; empty for the corpus folder itself."""
    common: str | None = None
    for name in names:
        folder = posixpath.dirname(name)
        common = folder if common is None else posixpath.commonpath([common, folder])
        if not common:
            break
    return common or ""


def _is_absolute(path: str) -> bool:
    """Whether a path or URI says by itself where it leads, on this system or another."""
    return path.strip().startswith(("/", "\\\\", "~/")) or bool(_ELSEWHERE.match(path.strip()))


def _outside(reference: str) -> ManifestError:
    return ManifestError(
        Reason.OUTSIDE_CORPUS,
        f"{reference!r} leaves the corpus folder; put the audio into it, or give an input "
        "directory that holds both",
    )


def _unicode_form(name: str) -> str:
    return unicodedata.normalize("NFC", stem_of(name))


def _is_folded(name: str, reference: str) -> bool:
    """Whether the last parts are alike but for case, Unicode form and ending."""
    one, other = (_unicode_form(posixpath.basename(text)).casefold() for text in (name, reference))
    return one == other
