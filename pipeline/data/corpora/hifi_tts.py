"""Read speech in the Hi-Fi TTS layout: JSON lines for each reader, quality and split."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from model.text import clean_text
from pipeline.data.corpora.base import CorpusFolder
from pipeline.data.corpora.entries import json_line_entries
from pipeline.data.corpora.librispeech import SUBSET_SPLITS
from pipeline.data.corpora.records import RecordReader
from pipeline.data.schema import ClipRow, Reject

SEX = dict.fromkeys(("92", "8051", "9136", "11614", "11697", "12787"), "female") | dict.fromkeys(
    ("6097", "6670", "6671", "9017"), "male"
)
"""Sex of the ten published readers, by LibriVox id. Source: arXiv:2104.01497, Table 1."""
_MANIFEST = re.compile(r"(?P<reader>\d+)_manifest_(?P<quality>clean|other)_(?P<set>\w+)\.json")


class HifiTts:
    """`<reader>_manifest_<clean|other>_<train|dev|test>.json` beside `audio/`.

    The normalised text with its punctuation is the transcript.
    """

    layout = "hifi_tts"

    def matches(self, folder: CorpusFolder) -> bool:
        """Whether manifests of that name lie in the folder, and audio below it."""
        return bool(folder.audio) and any(map(_MANIFEST.fullmatch, folder.files))

    def read(self, folder: CorpusFolder) -> Iterator[ClipRow | Reject]:
        """Every line of every manifest."""
        reader = RecordReader(folder, modality="speech")
        for name in folder.files:
            match = _MANIFEST.fullmatch(name)
            if match is None:
                continue
            known: dict[str, Any] = {
                "speaker": match["reader"],
                "speaker_sex": SEX.get(match["reader"]),
                "language": "en",
                "licence": "CC-BY-4.0",
                "split": SUBSET_SPLITS.get(match["set"]),
            }
            for entry in json_line_entries(folder, name):
                if isinstance(entry, Reject):
                    yield entry
                    continue
                normalised = clean_text(str(entry.values.get("text_normalized") or ""))[0]
                spoken = {"transcript": normalised} if normalised else {}
                yield reader.read(entry.values, entry.place, **known, **spoken)
