"""WebDataset tars as an input: audio members with a JSON member of the same name."""

from __future__ import annotations

import posixpath
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from pipeline.data.corpora.base import CorpusFolder, Place
from pipeline.data.corpora.fields import ROLES
from pipeline.data.corpora.file_names import is_audio_name, suffix_of
from pipeline.data.corpora.listing import litter_of
from pipeline.data.corpora.manifests import JsonObject, ManifestError, as_object, read_json
from pipeline.data.corpora.records import RecordReader, split_named
from pipeline.data.rejects import Reason
from pipeline.data.schema import ClipRow, Reject

MAX_JSON_BYTES = 16 * 2**20
"""Size of a JSON member that is read."""
NOT_OF_THE_CLIP = frozenset(ROLES["audio"]) | {"key", "__key__", "url", "name"}
"""Keys whose values name files as they were before the tar was packed."""
_KEY = re.compile(r"(?:.*/)?\.*[^./]*", re.DOTALL)  # the path up to the first dot of its last part
_PEEKED = 64  # members that are looked at to recognise a tar
_PEEKED_TARS = 4  # tars that are opened for it


@dataclass
class Sample:
    """Members of a tar with one key.

    Attributes:
        audio: Name of the audio member; empty if there is none.
        json: Name of the JSON member; empty if there is none.
        payload: The JSON; None if it is too large.
        more_audio: Names of further audio members, which are rejects.
        more_json: Names of further JSON members, which are not read.
    """

    audio: str = ""
    json: str = ""
    payload: bytes | None = field(default=None, repr=False)
    more_audio: list[str] = field(default_factory=list)
    more_json: list[str] = field(default_factory=list)


class WebDataset:
    """`<name>.tar` with `<key>.<audio>` and `<key>.json`; the keys are those of `fields.ROLES`.

    The key ends at the first dot of a name, or at the last where several recordings would have one
    key: `talk.0.wav` and `talk.1.wav` beside `talk.0.json` and `talk.1.json`. A text that is a list
    holds captions, as collections of described sounds write them. All tars of a folder are one
    corpus; `train-000.tar` and its like declare the split.
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
                for name in sample.more_audio:
                    detail = f"another audio of the key {key!r}; {sample.audio!r} is kept"
                    yield folder.reject(Reason.CONFLICT, detail, f"{tar}#{name}")

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
        if len(sample.more_json) and not sample.json:
            listed = ", ".join(map(repr, sample.more_json[:4]))
            detail = f"the record of {key!r} could be any of {listed}"
            return folder.reject(Reason.CONFLICT, detail, audio)
        if not sample.json:
            return folder.reject(Reason.UNREFERENCED, "audio without JSON in the tar", audio)
        if not sample.audio:
            return folder.reject(Reason.MISSING_AUDIO, f"no audio {key!r} in the tar", json)
        try:
            record = _record(sample.payload)
        except ManifestError as error:
            return folder.reject_manifest(error, json)
        clip_key = posixpath.join(tar.removesuffix(".tar"), key)
        made = self.clip(reader, record, Place(json), audio, clip_key)
        if sample.more_json and isinstance(made, ClipRow):
            notes = (*made.notes, *(f"json: {name!r} not read" for name in sample.more_json))
            return replace(made, notes=notes)
        return made


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
    """Samples of a tar by key.

    Args:
        folder: The corpus.
        tar: The tar.
        max_members: Members to look at; None reads all.

    Raises:
        ManifestError: If it is no tar, or damaged.
    """
    groups: dict[str, _Members] = {}
    path = posixpath.join(folder.root, tar)
    litter: Counter[str] = Counter()
    try:
        with (
            folder.listing.folder.open(path) as stream,
            tarfile.open(fileobj=stream, mode="r:") as archive,
        ):
            for member in islice(archive, max_members):
                kind = litter_of(member.name)
                if kind is not None:
                    litter[kind] += 1
                elif member.isfile():
                    key = _KEY.match(member.name)
                    assert key is not None, "it matches the empty name as well"
                    _add(groups.setdefault(key[0], _Members()), archive, member)
    except (tarfile.TarError, OSError) as error:
        raise ManifestError(Reason.MALFORMED, f"not a tar: {error}") from error
    if max_members is None:
        folder.listing.litter.update(litter)
    return {key: sample for name, group in groups.items() for key, sample in _samples(name, group)}


@dataclass
class _Members:
    """Audio and JSON members whose names are alike up to the first dot, in the tar's order."""

    audio: list[str] = field(default_factory=list)
    json: dict[str, bytes | None] = field(default_factory=dict)


def _add(group: _Members, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    """Note a member; of two of the very same name the later is the file, as tar has it."""
    if is_audio_name(member.name):
        group.audio.append(member.name)
    elif suffix_of(member.name) == ".json":
        source = archive.extractfile(member)
        is_small = source is not None and member.size <= MAX_JSON_BYTES
        group.json[member.name] = source.read() if source is not None and is_small else None


def _samples(key: str, group: _Members) -> Iterator[tuple[str, Sample]]:
    """The samples of a group: one, or one for every name up to its last dot."""
    if len(group.audio) > 1:
        by_stem: dict[str, _Members] = {}
        for name in group.audio:
            by_stem.setdefault(_stem(name), _Members()).audio.append(name)
        for name, payload in group.json.items():
            by_stem.setdefault(_stem(name), _Members()).json[name] = payload
        if any(members.audio and members.json for members in by_stem.values()):
            for stem, members in by_stem.items():
                yield stem, _sample(members)
            return
    if group.audio or group.json:
        yield key, _sample(group)


def _sample(members: _Members) -> Sample:
    """Audio with the JSON of its own name, or the only one there is."""
    audio = members.audio[0] if members.audio else ""
    names = list(members.json)
    own = [name for name in names if _stem(name) == _stem(audio)] or names
    json = own[0] if len(own) == 1 or not audio else ""
    return Sample(
        audio,
        json,
        members.json.get(json),
        members.audio[1:],
        [name for name in names if name != json],
    )


def _stem(name: str) -> str:
    return posixpath.splitext(name)[0]


def _record(payload: bytes | None) -> JsonObject:
    if payload is None:
        raise ManifestError(Reason.MALFORMED, f"more than {MAX_JSON_BYTES} bytes of JSON")
    return as_object(read_json(payload))
