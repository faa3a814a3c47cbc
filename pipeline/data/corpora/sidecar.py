"""Audio files with a JSON file of the same name beside each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.data.corpora.base import CorpusFolder, Place
from pipeline.data.corpora.file_names import stem_of
from pipeline.data.corpora.manifests import JsonObject, ManifestError, as_object, read_json
from pipeline.data.corpora.records import RecordReader
from pipeline.data.rejects import Reason
from pipeline.data.schema import ClipRow, Reject


class JsonSidecar:
    """`<name>.json` beside `<name>.<audio>`; the keys are those of `fields.ROLES`."""

    layout = "json_sidecar"

    def matches(self, folder: CorpusFolder) -> bool:
        """Whether at least one JSON file has audio of the same name beside it."""
        stems = {stem_of(name) for name in folder.audio if "/" not in name}
        return any(_stem(name) in stems for name in folder.having(".json"))

    def read(self, folder: CorpusFolder) -> Iterator[ClipRow | Reject]:
        """Every JSON file; audio without one is left to others."""
        reader = RecordReader(folder)
        audio = {stem_of(name): name for name in reversed(folder.audio) if "/" not in name}
        for name in folder.having(".json"):
            folder.claim(name)
            beside = audio.get(_stem(name))
            if beside is not None:
                folder.claim(beside)
            try:
                record = _record(read_json(folder.read_bytes(name)))
            except ManifestError as error:
                yield folder.reject_manifest(error, name)
                continue
            if beside is None:
                yield folder.reject(
                    Reason.MISSING_AUDIO, f"no audio file {_stem(name)!r} beside it", name
                )
                continue
            kept = {key: value for key, value in record.items() if key.lower() not in _OF_THE_FILE}
            yield reader.read(kept, Place(name), audio=beside)


_OF_THE_FILE = frozenset({"id", "file", "filename", "file_name", "path", "audio", "name"})


def _record(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, JsonObject):
        raise ManifestError(
            Reason.MALFORMED, f"holds a {type(value).__name__} where an object belongs"
        )
    return as_object(value)


def _stem(name: str) -> str:
    return name.removesuffix(".json")
