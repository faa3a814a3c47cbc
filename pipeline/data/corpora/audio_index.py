"""Example recordings in the librosa layout: an index of keys, and the licence of each in a text."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from model.text import clean_text
from pipeline.data.corpora.base import CorpusFolder, Place
from pipeline.data.corpora.entries import json_objects, rejecting
from pipeline.data.corpora.file_names import stem_of
from pipeline.data.corpora.licences import licences_in
from pipeline.data.corpora.manifests import JsonObject, ManifestError
from pipeline.data.rejects import Reason
from pipeline.data.schema import ClipRow, Reject

INDEXES = ("index/index.json", "index.json")
"""Path of the index, relative to the corpus."""


class AudioIndexFile:
    """`index/index.json`: key to path and description; `audio/<path>.ogg`, and `.txt` beside it."""

    layout = "audio_index"

    def matches(self, folder: CorpusFolder) -> bool:
        """Whether there is an index of paths, and audio."""
        name = folder.first_of(INDEXES)
        return name is not None and bool(folder.audio) and b'"path"' in folder.head(name)

    def read(self, folder: CorpusFolder) -> Iterator[ClipRow | Reject]:
        """Every entry of the index."""
        name = folder.first_of(INDEXES)
        if name is None:
            yield folder.reject(Reason.MISSING_AUDIO, f"none of {', '.join(INDEXES)} is there")
            return
        for item in json_objects(folder, name):
            yield item if isinstance(item, Reject) else _row(folder, Place(name), *item)


@rejecting
def _row(folder: CorpusFolder, place: Place, key: str, entry: JsonObject) -> ClipRow | Reject:
    if not isinstance(entry.get("path"), str):
        raise ManifestError(Reason.MALFORMED, "the entry has no path", field=key)
    near = posixpath.dirname(place.manifest)
    audio, note = folder.find_audio(entry["path"], near, field=key)
    text = f"{stem_of(audio)}.txt"
    licences: set[str] = set()
    if text in folder.names:
        folder.claim(text)
        licences = licences_in(folder.head(text).decode(errors="replace"))
    description, cleaning = clean_text(str(entry.get("desc") or ""))
    return folder.clip(
        key,
        audio,
        modality=None,
        place=place,
        title=description or None,
        captions=(description,) if description else (),
        licence=licences.pop() if len(licences) == 1 else None,
        notes=tuple(filter(None, (note, cleaning))),
    )
