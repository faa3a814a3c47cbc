"""Spoken commands in the layout of Picovoice: labelled by intent, not by words."""

from __future__ import annotations

import re
from collections.abc import Iterator

from model.text import clean_text
from pipeline.data.corpora.base import CorpusFolder, Place
from pipeline.data.corpora.entries import json_objects, rejecting
from pipeline.data.corpora.manifests import JsonObject, ManifestError
from pipeline.data.rejects import Reason
from pipeline.data.schema import ClipRow, Reject

LABELS = ("label/label.json", "label.json", "labels.json")
"""Path of the labels, relative to the corpus."""
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")


class Picovoice:
    """`label/label.json`: file name to intent and slots; the audio lies anywhere below.

    The words were not written down, so the clips have no transcript; intent and slots are tags.
    """

    layout = "picovoice"

    def matches(self, folder: CorpusFolder) -> bool:
        """Whether there is a label file that speaks of intents, and audio."""
        name = folder.first_of(LABELS)
        return name is not None and bool(folder.audio) and b'"intent"' in folder.head(name)

    def read(self, folder: CorpusFolder) -> Iterator[ClipRow | Reject]:
        """Every entry of the label file."""
        name = folder.first_of(LABELS)
        if name is None:
            yield folder.reject(Reason.MISSING_AUDIO, f"none of {', '.join(LABELS)} is there")
            return
        for item in json_objects(folder, name):
            yield item if isinstance(item, Reject) else _row(folder, Place(name), *item)


@rejecting
def _row(folder: CorpusFolder, place: Place, key: str, label: JsonObject) -> ClipRow | Reject:
    audio, note = folder.find_audio(key, field=key)
    slots = label.get("slots", {})
    if not isinstance(slots, JsonObject | dict) or not isinstance(label.get("intent"), str):
        raise ManifestError(Reason.MALFORMED, "no intent with slots", field=key)
    tags = [_words(label["intent"])]
    tags += [f"{_words(slot)}: {clean_text(str(value))[0]}" for slot, value in slots.items()]
    return folder.clip(
        key.rpartition(".")[0] or key,
        audio,
        modality="speech",
        place=place,
        tags=tuple(tags),
        notes=(note,) if note else (),
    )


def _words(name: str) -> str:
    return _HUMP.sub(" ", clean_text(name)[0]).lower()
