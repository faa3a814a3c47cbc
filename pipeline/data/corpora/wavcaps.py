"""Sounds with captions in the WavCaps layout: one JSON file for each source of audio."""

from __future__ import annotations

import re
from collections.abc import Iterator

from model.text import clean_text
from pipeline.data.corpora.base import CorpusFolder, Place
from pipeline.data.corpora.entries import absent_part, json_objects, rejecting
from pipeline.data.corpora.fields import as_number
from pipeline.data.corpora.file_names import stem_of
from pipeline.data.corpora.manifests import JsonObject, ManifestError
from pipeline.data.rejects import Reason
from pipeline.data.schema import ClipRow, Reject

LICENCE = "LicenseRef-WavCaps-academic-use"
"""The corpus may be used for research only, whatever its sources say."""
_MANIFEST = re.compile(r"(?:.*/)?(?P<source>[A-Za-z_]+)/(?:as|bbc|fsd|sb)_final(?:_2s)?\.json")


class WavCaps:
    """`json_files/<source>/*_final.json` beside folders of audio called `<source>`.

    A row is found by its id in a folder of its source; sources without any audio are not read.
    """

    layout = "wavcaps"

    def matches(self, folder: CorpusFolder) -> bool:
        """Whether such files lie in `json_files`, and audio in the folder."""
        return bool(folder.audio) and any(map(_MANIFEST.fullmatch, _jsons(folder)))

    def read(self, folder: CorpusFolder) -> Iterator[ClipRow | Reject]:
        """Every row of every source."""
        read: set[tuple[str, str]] = set()
        for name in _jsons(folder):
            folder.claim(name)
            match = _MANIFEST.fullmatch(name)
            if match is None:
                continue
            source = match["source"]
            within = _audio_folder(folder, source)
            num_absent = 0
            for item in json_objects(folder, name, "data"):
                if isinstance(item, Reject):
                    yield item
                elif within is None:
                    num_absent += 1
                elif (source, str(item[1].get("id"))) not in read:
                    read.add((source, str(item[1].get("id"))))
                    yield _clip(folder, Place(name), item, source, within)
            yield from absent_part(folder, name, num_absent, source)


def _jsons(folder: CorpusFolder) -> list[str]:
    return [n for n in folder.names if n.startswith("json_files/") and n.endswith(".json")]


def _audio_folder(folder: CorpusFolder, source: str) -> str | None:
    for name in folder.audio:
        for part in name.split("/")[:-1]:
            if part in (source, f"{source}_flac"):
                return part
    return None


@rejecting
def _clip(
    folder: CorpusFolder, place: Place, item: tuple[str, JsonObject], source: str, within: str
) -> ClipRow | Reject:
    index, record = item
    stem = stem_of(str(record.get("id") or ""))
    audio = folder.find_named([stem], within=within, field=f"data[{index}].id")
    caption, note = clean_text(str(record.get("caption") or ""))
    if not caption:
        raise ManifestError(
            Reason.MISSING_VALUE, "the caption is empty", field=f"data[{index}].caption"
        )
    duration = as_number(record.get("duration"))
    return folder.clip(
        f"{source}/{stem}",
        audio,
        modality="sound",
        place=place,
        captions=(caption,),
        declared_duration_s=duration if duration and duration > 0 else None,
        licence=LICENCE,
        attribution=clean_text(str(record.get("author") or ""))[0] or None,
        notes=(note,) if note else (),
    )
