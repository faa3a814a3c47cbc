"""Speech from the wild in the Emilia layout: JSON with a quality estimate for every clip."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.data.corpora.base import CorpusFolder, Place
from pipeline.data.corpora.entries import json_line_entries
from pipeline.data.corpora.fields import as_number
from pipeline.data.corpora.file_names import stem_of
from pipeline.data.corpora.manifests import JsonObject, ManifestError, read_json
from pipeline.data.corpora.records import RecordReader
from pipeline.data.corpora.webdataset import WebDataset, peek, tars_of
from pipeline.data.rejects import Reason
from pipeline.data.schema import ClipRow, Reject

LICENCES = {"Emilia": "CC-BY-NC-4.0", "Emilia-YODAS": "CC-BY-4.0"}
"""Licences of the two parts of the corpus, by the name of their folders."""
_KEYS = ("id", "text", "speaker", "language", "dnsmos")
_ID = re.compile(r"[A-Z]{2}_B\d+_S\d+_W\d+")


class Emilia(WebDataset):
    """Tars of `<id>.mp3` and `<id>.json`, the same unpacked, or `<batch>.jsonl` with a tree.

    The estimate (DNSMOS) is noted on the clip. The licence is that of the part that the folder is
    called after, or of the ids, which the parts write differently.
    """

    layout = "emilia"
    modality = "speech"

    def is_record(self, record: Mapping[str, Any]) -> bool:
        """All keys of the published records."""
        return all(key in record for key in _KEYS)

    def matches(self, folder: CorpusFolder) -> bool:
        """Whether the first record of a tar, of a file of lines or beside audio is of Emilia."""
        return any(map(self.is_record, _first_records(folder)))

    def read(self, folder: CorpusFolder) -> Iterator[ClipRow | Reject]:
        """Every record of tars, of lines, and of single files."""
        if tars_of(folder):
            yield from super().read(folder)
        reader = RecordReader(folder, modality=self.modality)
        for name in folder.having(".jsonl"):
            for entry in json_line_entries(folder, name):
                if isinstance(entry, Reject):
                    yield entry
                else:
                    yield self._line(reader, entry.values, entry.place)
        beside = {stem_of(name): name for name in reversed(folder.audio) if "/" not in name}
        for name in folder.having(".json"):
            folder.claim(name)
            audio = beside.get(name.removesuffix(".json"))
            try:
                record = read_json(folder.read_bytes(name))
                if not isinstance(record, JsonObject):
                    raise ManifestError(Reason.MALFORMED, "no object of one clip")
                if audio is None:
                    raise ManifestError(Reason.MISSING_AUDIO, "no audio of that name beside it")
            except ManifestError as error:
                yield folder.reject_manifest(error, name)
                continue
            folder.claim(audio)
            yield self.clip(reader, record, Place(name), audio, stem_of(audio))

    def clip(
        self, reader: RecordReader, record: dict[str, Any], place: Place, audio: str, key: str
    ) -> ClipRow | Reject:
        """A clip with its licence and quality."""
        kept = {name: record[name] for name in (*_KEYS, "duration") if name in record}
        return reader.read(kept, place, audio=audio, key=key, **_known(reader.folder, kept))

    def _line(self, reader: RecordReader, record: dict[str, Any], place: Place) -> ClipRow | Reject:
        kept = {name: record[name] for name in (*_KEYS, "duration", "wav") if name in record}
        return reader.read(kept, place, **_known(reader.folder, kept))


def _known(folder: CorpusFolder, record: Mapping[str, Any]) -> dict[str, Any]:
    licence = next((LICENCES[part] for part in folder.parts_of() if part in LICENCES), None)
    if licence is None and _ID.fullmatch(str(record.get("id"))):
        licence = LICENCES["Emilia"]
    quality = as_number(record.get("dnsmos"))
    notes = () if quality is None else (f"dnsmos: {quality:.2f} by the corpus's own estimate",)
    return {"licence": licence, "notes": notes}


def _first_records(folder: CorpusFolder) -> Iterator[JsonObject]:
    found: list[Any] = [peek(folder)]
    if folder.audio:
        for name in (*folder.having(".jsonl")[:1], *folder.having(".json")[:1]):
            head = folder.head(name)
            with contextlib.suppress(ManifestError):
                found.append(read_json(head.partition(b"\n")[0] if name[-1] == "l" else head))
    return (record for record in found if isinstance(record, JsonObject))
