"""From what a manifest writes to the audio file it means, and never out of the corpus folder."""

from __future__ import annotations

import posixpath
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from pipeline.data.corpora.listing import is_audio_name
from pipeline.data.rejects import Reason


class AudioLookupError(Exception):
    """The audio of a row cannot be found."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass
class _Index:
    """Names by one form of their whole path, and by that of their last part."""

    form: Callable[[str], str]
    by_path: dict[str, list[str]] = field(default_factory=dict)
    by_last: dict[str, list[str]] = field(default_factory=dict)

    def find(self, paths: Sequence[str]) -> list[str]:
        """Names at one of the paths, else names whose path ends in one of them."""
        for path in paths:
            if path in self.by_path:
                return self.by_path[path]
        for path in paths:
            last = posixpath.basename(path)
            tail = "/" + path
            found = [n for n in self.by_last.get(last, ()) if self.form(n).endswith(tail)]
            if found:
                return found
        return []


class AudioIndex:
    """The files of a corpus, by every form in which a manifest may name them.

    Args:
        names: Names relative to the corpus folder.
        uri: The corpus folder, for manifests that write absolute paths into it.
    """

    def __init__(self, names: Sequence[str], uri: str) -> None:
        self._names = names
        self._audio = [name for name in names if is_audio_name(name)]
        self._uri = uri

    def find(self, reference: str, near: str = "") -> tuple[str, str | None]:
        """The file that a manifest means.

        Tried in this order, each first as a path below `near` or the corpus folder and then as the
        end of exactly one file's path: as written; without the ending of the file's name; with
        another ending; in another Unicode form.

        Args:
            reference: Path or name as written, with or without ending.
            near: Directory of the manifest, relative to the corpus.

        Returns:
            The name, and a note if the file is not called as written.

        Raises:
            AudioLookupError: If there is none, or more than one, or it would lie outside.
        """
        paths = self._paths_inside(reference, near)
        for index, form, is_as_written in (
            (self._by_name, str, True),
            (self._by_stem, str, True),
            (self._by_stem, stem_of, False),
            (self._by_unicode, _unicode_form, False),
        ):
            matches = index.find([form(path) for path in paths])
            if len(matches) > 1:
                listed = ", ".join(map(repr, sorted(matches)[:4]))
                raise AudioLookupError(
                    Reason.AMBIGUOUS_AUDIO, f"{reference!r} could be any of {listed}"
                )
            if matches:
                note = None if is_as_written else f"file: {reference!r} is {matches[0]!r} on disk"
                return matches[0], note
        raise AudioLookupError(Reason.MISSING_AUDIO, self._missing(reference))

    def _paths_inside(self, reference: str, near: str) -> list[str]:
        if not reference.strip():
            raise AudioLookupError(Reason.MISSING_VALUE, "the row names no audio file")
        local = reference.removeprefix(self._uri.rstrip("/") + "/")
        paths = [posixpath.normpath(posixpath.join(base, local)) for base in (near, "")]
        inside = [path for path in paths if not path.startswith(("/", "../")) and path != ".."]
        if not inside or "://" in local:
            raise AudioLookupError(
                Reason.OUTSIDE_CORPUS,
                f"{reference!r} leaves the corpus folder; put the audio into it, or give an input "
                "directory that holds both",
            )
        variants = [*inside, *(path.strip() for path in inside)]
        return list(dict.fromkeys([*variants, *(p.replace("\\", "/") for p in variants)]))

    def _missing(self, reference: str) -> str:
        near = self._by_fold.get(_folded(reference), [])
        hint = f"; {near[0]!r} differs in upper and lower case" if near else ""
        return f"no audio file {reference!r} in the corpus folder{hint}"

    @cached_property
    def _by_fold(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        for name in self._audio:
            names.setdefault(_folded(name), []).append(name)
        return names

    def _index(self, names: Sequence[str], form: Callable[[str], str]) -> _Index:
        index = _Index(form)
        for name in names:
            key = form(name)
            index.by_path.setdefault(key, []).append(name)
            index.by_last.setdefault(posixpath.basename(key), []).append(name)
        return index

    @cached_property
    def _by_name(self) -> _Index:
        return self._index(self._names, str)

    @cached_property
    def _by_stem(self) -> _Index:
        return self._index(self._audio, stem_of)

    @cached_property
    def _by_unicode(self) -> _Index:
        return self._index(self._audio, _unicode_form)


def stem_of(name: str) -> str:
    """A name without an ending that says audio."""
    return posixpath.splitext(name)[0] if is_audio_name(name) else name


def _unicode_form(name: str) -> str:
    return unicodedata.normalize("NFC", stem_of(name))


def _folded(name: str) -> str:
    return _unicode_form(posixpath.basename(name)).casefold()
