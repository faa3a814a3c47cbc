"""Sound events in the FSD50K layout: classes of the AudioSet ontology, and facts of Freesound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from model.text import clean_text
from pipeline.data.corpora.base import CorpusFolder, Place
from pipeline.data.corpora.entries import absent_part, json_objects, rejecting, table_entries
from pipeline.data.corpora.fsd50k_ontology import leaves
from pipeline.data.corpora.licences import licence_of
from pipeline.data.corpora.manifests import JsonObject, ManifestError
from pipeline.data.rejects import Reason
from pipeline.data.schema import ClipRow, Reject

PARTS = ("dev", "eval")
"""Parts of the corpus; the first is divided into train and val, the second is for testing."""
_SPLITS = {"train": "train", "val": "validation"}


class Fsd50k:
    """`FSD50K.ground_truth/dev.csv` and `eval.csv` beside `FSD50K.dev_audio` and its like.

    The labels are tags. `FSD50K.metadata` gives title, licence and uploader of each clip.
    """

    layout = "fsd50k"

    def matches(self, folder: CorpusFolder) -> bool:
        """Whether the ground truth of a part lies where it should, with some of its audio."""
        return any(
            _truth(part) in folder.names
            and any(name.startswith(_audio(part)) for name in folder.audio)
            for part in PARTS
        )

    def read(self, folder: CorpusFolder) -> Iterator[ClipRow | Reject]:
        """Every row of the ground truth."""
        for name in folder.names:
            if name.startswith(("FSD50K.ground_truth/", "FSD50K.metadata/", "FSD50K.doc/")):
                folder.claim(name)
        for part in PARTS:
            if _truth(part) in folder.names:
                yield from _read_part(folder, part)


def tags_of(labels: str) -> tuple[str, ...]:
    """The most specific classes in a cell of labels; commas between the names of one class.

    The corpus lists every class with its ancestors in the ontology, and writes `_and_` for the
    commas of AudioSet: `Walk_and_footsteps`.
    """
    names = leaves([text.strip() for text in labels.split(",")])
    words = (clean_text(name.replace("_and_", ", ").replace("_", " "))[0] for name in names)
    return tuple(dict.fromkeys(filter(None, words)))


def _truth(part: str) -> str:
    return f"FSD50K.ground_truth/{part}.csv"


def _audio(part: str) -> str:
    return f"FSD50K.{part}_audio/"


def _read_part(folder: CorpusFolder, part: str) -> Iterator[ClipRow | Reject]:
    has_audio = any(name.startswith(_audio(part)) for name in folder.audio)
    facts: dict[str, JsonObject] = {}
    info = f"FSD50K.metadata/{part}_clips_info_FSD50K.json"
    if has_audio and info in folder.names:
        for item in json_objects(folder, info):
            if isinstance(item, Reject):
                yield item
            else:
                facts[item[0]] = item[1]
    num_absent = 0
    for entry in table_entries(folder, _truth(part), ("fname", "labels")):
        if isinstance(entry, Reject):
            yield entry
        elif has_audio:
            known = facts.get(entry.values["fname"].strip(), JsonObject())
            yield _clip(folder, entry.place, entry.values, part, known)
        else:
            num_absent += 1
    yield from absent_part(folder, _truth(part), num_absent, _audio(part))


@rejecting
def _clip(
    folder: CorpusFolder, place: Place, values: Mapping[str, str], part: str, known: JsonObject
) -> ClipRow | Reject:
    number = values["fname"].strip()
    audio = folder.find_named([number], within=_audio(part).rstrip("/"), field="fname")
    tags = tags_of(values["labels"])
    if not tags:
        raise ManifestError(Reason.MISSING_VALUE, "no label is given", field="labels")
    return folder.clip(
        f"{part}/{number}",
        audio,
        modality="sound",
        place=place,
        tags=tags,
        title=clean_text(str(known.get("title") or ""))[0] or None,
        licence=licence_of(str(known.get("license") or "")),
        attribution=clean_text(str(known.get("uploader") or ""))[0] or None,
        split="test" if part == "eval" else _SPLITS.get(values.get("split", "")),
    )
