"""WebDataset tars as an input: audio members with a JSON member of the same name."""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from pipeline.data.corpora.base import CorpusFolder, Place
from pipeline.data.corpora.fields import ROLES
from pipeline.data.corpora.listing import is_audio_name, suffix_of
from pipeline.data.corpora.manifests import JsonObject, ManifestError, read_json
from pipeline.data.corpora.records import RecordReader, split_named
from pipeline.data.rejects import Reason
from pipeline.data.schema import ClipRow, Reject

MAX_JSON_BYTES = 1 << 20
"""Size of a JSON member that is read."""
NOT_OF_THE_CLIP = frozenset(ROLES["audio"]) | {"key", "__key__", "url", "name"}
"""Keys that name files of the one who packed the tar."""
_PEEKED = 64  # members that are looked at to recognise a tar
_PEEKED_TARS = 4  # tars that are opened for it


@dataclass
class Sample:
    """Members of a tar with one name.

    Attributes:
        audio: Name of the audio member; empty if there is none.
        json: Name of the JSON member; empty if there is none.
        payload: The JSON; None if it is too large.
    """

    audio: str = ""
    json: str = ""
    payload: bytes | None = field(default=None, repr=False)


class WebDataset:
    """`<name>.tar` with `<key>.<audio>` and `<key>.json`; the keys are those of `fields.ROLES`.

    A text that is a list holds captions, as collections of described sounds write them. All tars
    of a folder are one corpus; `train-000.tar` and its like declare the split.
    """

    layout = "webdataset"
    modality: str | None = None

    def matches(self, folder: CorpusFolder) -> bool:
        """Whether a tar directly in the folder begins with audio and JSON of one name."""
        record = peek(folder)
        return record is not None and self.is_record(record)

    def is_record(self, record: Mapping[str, Any]) -> bool:
        """Whether the JSON beside audio is of this layout."""
        return True

    def read(self, folder: CorpusFolder) -> Iterator[ClipRow | Reject]:
        """Every sample of every tar, by name of the tar."""
        reader = RecordReader(folder, modality=self.modality)
        for tar in tars_of(folder):
            folder.claim(tar)
            try:
                samples = read_samples(folder, tar)
            except ManifestError as error:
                yield folder.reject_manifest(error, tar)
                continue
            for key, sample in samples.items():
                yield self._clip(reader, tar, key, sample)

    def clip(
        self, reader: RecordReader, record: dict[str, Any], place: Place, audio: str, key: str
    ) -> ClipRow | Reject:
        """A clip of one record."""
        kept = {name: v for name, v in record.items() if name.lower() not in NOT_OF_THE_CLIP}
        if isinstance(kept.get("text"), list):
            kept.setdefault("captions", kept.pop("text"))
        kept.setdefault("split", split_named(place.manifest.partition("#")[0]))
        return reader.read(kept, place, audio=audio, key=key)

    def _clip(self, reader: RecordReader, tar: str, key: str, sample: Sample) -> ClipRow | Reject:
        folder = reader.folder
        audio, json = f"{tar}#{sample.audio}", f"{tar}#{sample.json}"
        if not sample.json:
            return folder.reject(Reason.UNREFERENCED, "audio without JSON in the tar", audio)
        if not sample.audio:
            return folder.reject(Reason.MISSING_AUDIO, f"no audio {key!r} in the tar", json)
        try:
            record = _record(sample.payload)
        except ManifestError as error:
            return folder.reject_manifest(error, json)
        clip_key = posixpath.join(tar.removesuffix(".tar"), key)
        return self.clip(reader, record, Place(json), audio, clip_key)


def tars_of(folder: CorpusFolder) -> list[str]:
    """Names of tars directly in the folder."""
    return folder.having(".tar")


def peek(folder: CorpusFolder) -> JsonObject | None:
    """The first JSON beside audio in the tars directly in the folder."""
    for tar in tars_of(folder)[:_PEEKED_TARS]:
        try:
            for sample in read_samples(folder, tar, _PEEKED).values():
                if sample.audio and sample.json:
                    return _record(sample.payload)
        except ManifestError:
            continue
    return None


def read_samples(
    folder: CorpusFolder, tar: str, max_members: int | None = None
) -> dict[str, Sample]:
    """Samples of a tar by key: the path up to the first dot of its last part.

    Args:
        folder: The corpus.
        tar: The tar.
        max_members: Members to look at; None reads all.

    Raises:
        ManifestError: If it is no tar, or damaged.
    """
    samples: dict[str, Sample] = {}
    path = posixpath.join(folder.root, tar)
    try:
        with (
            folder.listing.folder.open(path) as stream,
            tarfile.open(fileobj=stream, mode="r:") as archive,
        ):
            for member in islice(archive, max_members):
                parent, last = posixpath.split(member.name)
                key = posixpath.join(parent, last.partition(".")[0])
                if not member.isfile():
                    continue
                if is_audio_name(last):
                    samples.setdefault(key, Sample()).audio = member.name
                elif suffix_of(last) == ".json":
                    sample = samples.setdefault(key, Sample())
                    sample.json = member.name
                    source = archive.extractfile(member)
                    if source is not None and member.size <= MAX_JSON_BYTES:
                        sample.payload = source.read()
    except (tarfile.TarError, OSError) as error:
        raise ManifestError(Reason.MALFORMED, f"not a tar: {error}") from error
    return samples


def _record(payload: bytes | None) -> JsonObject:
    if payload is None:
        raise ManifestError(Reason.MALFORMED, f"more than {MAX_JSON_BYTES} bytes of JSON")
    record = read_json(payload)
    if not isinstance(record, JsonObject):
        raise ManifestError(Reason.MALFORMED, f"a {type(record).__name__} where an object belongs")
    if record.repeated:
        raise ManifestError(
            Reason.CONFLICT, "the same key twice in one object", field=", ".join(record.repeated)
        )
    return record
