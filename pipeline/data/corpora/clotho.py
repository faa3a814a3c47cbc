"""Sounds with captions in the Clotho layout: five captions a file, and where each file is from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from model.text import clean_text
from pipeline.data.corpora.base import CorpusFolder, Place
from pipeline.data.corpora.entries import absent_part, rejecting, table_entries
from pipeline.data.corpora.file_names import last_stem_of
from pipeline.data.corpora.licences import licence_of
from pipeline.data.corpora.manifests import ManifestError
from pipeline.data.rejects import Reason
from pipeline.data.schema import ClipRow, Reject

SPLITS = {"development": "train", "validation": "validation", "evaluation": "test"}
"""Sets of the corpus, and the split that each is."""
_TABLE = re.compile(r"(?P<folder>[^/]*/)?clotho_captions_(?P<set>[a-z]+)\.csv")
_CAPTIONS = tuple(f"caption_{number}" for number in range(1, 6))
_ENCODING = "iso-8859-1"  # of the published metadata tables


class Clotho:
    """`clotho_captions_<set>.csv` and `clotho_metadata_<set>.csv` beside audio in `<set>/`.

    The metadata give keywords, the licence, and the one who recorded it.
    """

    layout = "clotho"

    def matches(self, folder: CorpusFolder) -> bool:
        """Whether a table of captions lies in the folder or one below it, and audio."""
        return bool(folder.audio) and any(map(_TABLE.fullmatch, folder.names))

    def read(self, folder: CorpusFolder) -> Iterator[ClipRow | Reject]:
        """Every row of every table of captions; of those without a set's folder, none."""
        present = {part for name in folder.audio for part in name.split("/")[:-1]} & set(SPLITS)
        for name in filter(_TABLE.fullmatch, folder.names):
            match = _TABLE.fullmatch(name)
            subset = match["set"] if match else ""
            known: dict[str, dict[str, Any]] = {}
            yield from _read_metadata(folder, name.replace("_captions_", "_metadata_"), known)
            num_absent = 0
            for entry in table_entries(folder, name, ("file_name", *_CAPTIONS)):
                if isinstance(entry, Reject):
                    yield entry
                elif subset in present or not present:
                    within = subset if present else ""
                    yield _clip(folder, entry.place, entry.values, subset, within, known)
                else:
                    num_absent += 1
            yield from absent_part(folder, name, num_absent, subset)


def _read_metadata(
    folder: CorpusFolder, name: str, known: dict[str, dict[str, Any]]
) -> Iterator[Reject]:
    if name not in folder.names:
        return
    for entry in table_entries(folder, name, ("file_name",), encoding=_ENCODING):
        if isinstance(entry, Reject):
            yield entry
            continue
        keywords = entry.values.get("keywords", "").split(";")
        known[entry.values["file_name"]] = {
            "tags": tuple(word for text in keywords if (word := clean_text(text)[0])),
            "licence": licence_of(entry.values.get("license", "")),
            "attribution": clean_text(entry.values.get("manufacturer", ""))[0] or None,
        }


@rejecting
def _clip(
    folder: CorpusFolder,
    place: Place,
    values: Mapping[str, str],
    subset: str,
    within: str,
    known: dict[str, dict[str, Any]],
) -> ClipRow | Reject:
    stem = last_stem_of(values["file_name"])
    audio = folder.find_named([stem, stem.strip()], within=within, field="file_name")
    captions = [text for key in _CAPTIONS if (text := clean_text(values[key])[0])]
    if not captions:
        raise ManifestError(Reason.MISSING_VALUE, "no caption is given", field="caption_1")
    return folder.clip(
        f"{subset}/{stem.strip()}",
        audio,
        modality="sound",
        place=place,
        captions=tuple(dict.fromkeys(captions)),
        split=SPLITS.get(subset),
        **known.get(values["file_name"], {}),
    )
