"""Published lists of clips that must not be trained on, such as the blacklists of WavCaps."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any

from pipeline.data.corpora.file_names import stem_of
from pipeline.data.corpora.manifests import ManifestError, read_json
from pipeline.errors import SettingsError
from pipeline.settings import Settings
from pipeline.storage import Folder


class IdList(Settings):
    """A list of ids of clips."""

    path: str
    """Path or URI: a text file with an id a line, or a JSON file with a list of ids or an object of
    lists. The keys of an object are the beginnings of ids, as in WavCaps: `FreeSound`."""
    corpus: str | None = None
    """Corpus of the ids; None applies them to all corpora."""


class ListedIds:
    """The ids of several lists.

    Args:
        lists: The lists.

    Raises:
        SettingsError: If a file is missing or holds no ids.
    """

    def __init__(self, lists: tuple[IdList, ...]) -> None:
        self._lists = [(entry, frozenset(_ids(entry.path))) for entry in lists]

    def why(self, corpus: str, clip_id: str) -> str:
        """Why a clip must not be used; empty if no list names it.

        Args:
            corpus: Corpus of the clip.
            clip_id: `<corpus>/<key>`. A list may name the key, its last part, or the audio file.
        """
        key = stem_of(clip_id.removeprefix(f"{corpus}/"))
        names = {key, posixpath.basename(key)}
        for entry, ids in self._lists:
            if entry.corpus in (None, corpus) and not ids.isdisjoint(names):
                return f"its id is in the list {entry.path}"
        return ""


def _ids(path: str) -> Iterator[str]:
    parent, _, name = path.rpartition("/")
    folder = Folder.at(parent or ".")
    try:
        payload = folder.read_bytes(name)
        found = _entries(payload, is_json=name.endswith(".json"))
    except (OSError, ManifestError, UnicodeDecodeError) as error:
        raise SettingsError(f"refusals.id_lists: {path}: {error}") from error
    if not found:
        raise SettingsError(f"refusals.id_lists: {path} holds no ids")
    for start, entry in found:
        yield posixpath.join(start, stem_of(str(entry).strip()))


def _entries(payload: bytes, *, is_json: bool) -> list[tuple[str, Any]]:
    if not is_json:
        return [("", line) for line in payload.decode("utf-8-sig").split("\n") if line.strip()]
    value = read_json(payload)
    lists = value if isinstance(value, dict) else {"": value}
    return [(key, entry) for key, ids in lists.items() if isinstance(ids, list) for entry in ids]
