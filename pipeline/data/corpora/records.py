"""One record of a table, a JSON file or a Parquet row as a clip row."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.data.corpora.base import MODALITIES, CorpusFolder, Place
from pipeline.data.corpora.fields import Fields, as_number, is_missing, roles_of
from pipeline.data.corpora.file_names import stem_of
from pipeline.data.corpora.manifests import ManifestError
from pipeline.data.rejects import Reason
from pipeline.data.schema import SPLITS, ClipRow, Reject
from pipeline.data.scratch import ScratchMap

LABELS = ("transcript", "caption", "tags", "title", "speaker", "language", "modality", "duration")
"""Roles of which a table needs at least one, besides the audio, to be a manifest."""
_MUSICAL_KEYS = frozenset({"instrument", "instruments", "genre", "genres", "bpm", "tempo_bpm"})
_DESCRIBED = frozenset({"sound", "music"})
"""Modalities of which a value called `text` says what is heard, not what is spoken."""
_SEX = dict.fromkeys(("f", "female", "woman", "female_feminine"), "female") | dict.fromkeys(
    ("m", "male", "man", "male_masculine"), "male"
)
_SPLITS = dict.fromkeys(("dev", "valid", "val"), "validation") | {"eval": "test"}
_SPLIT_NAME = re.compile(r"(?:train|validation|valid|val|dev|test|eval)(?![a-z])")


def split_named(name: str) -> str | None:
    """The split that the name of a file or folder begins with, as in `train-00000.tar`."""
    match = _SPLIT_NAME.match(posixpath.basename(name).lower())
    return _SPLITS.get(match[0], match[0]) if match else None


def is_manifest_header(keys: Iterable[str]) -> bool:
    """Whether columns of these names describe audio files."""
    roles = roles_of(keys)
    return "audio" in roles and any(role in roles for role in LABELS)


@dataclass
class RecordReader:
    """Converts records to clips; a harmless oddity becomes a note of the clip.

    Attributes:
        folder: The corpus.
        modality: Modality of the layout, if it is known.
        has_spans: Whether start and end, or start and duration, are a span of the audio file.
    """

    folder: CorpusFolder
    modality: str | None = None
    has_spans: bool = True
    _ends: ScratchMap = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._ends = self.folder.listing.files.map()

    def read(
        self,
        record: Mapping[str, Any],
        place: Place,
        *,
        near: str = "",
        audio: str | None = None,
        key: str | None = None,
        **known: Any,
    ) -> ClipRow | Reject:
        """A clip, or a reject.

        Args:
            record: Values by key: JSON types, or the strings of a table.
            place: File and line of the record.
            near: Directory that its audio path starts from.
            audio: The audio file, where it is known without the record.
            key: Key of the clip, where the record has no id; None takes the audio's name. A span
                adds where it starts, and where it ends if one before it started there.
            known: Fields of `ClipRow` that the layout knows better.
        """
        fields = Fields(record)
        try:
            if audio is None:
                audio, note = self._find(fields, near)
                fields.notes.extend([note] if note else [])
            fields.notes.extend(known.pop("notes", ()))
            values = self._values(fields) | known
            key = fields.text("id") or key or stem_of(audio)
            if values["start_s"] is not None and "id" not in fields.roles:
                key = self._span_key(key, values["start_s"], values["end_s"])
            modality = _modality(fields) or self.modality or _musical(record)
            if "transcript" not in known and self.folder.modality_of(modality) in _DESCRIBED:
                values |= _described(fields, values)
        except ManifestError as error:
            return self.folder.reject(
                error.reason, error.detail, place.manifest, line=place.line, field=error.field
            )
        return self.folder.clip(
            key, audio, modality=modality, place=place, notes=tuple(fields.notes), **values
        )

    def _find(self, fields: Fields, near: str) -> tuple[str, str | None]:
        for name in fields.roles.get("audio", ()):
            value = fields.record[name]
            if isinstance(value, Mapping):
                value = value.get("path")
            if isinstance(value, str) and not is_missing(value):
                return self.folder.find_audio(value, near, field=fields.names("audio"))
        raise ManifestError(
            Reason.MISSING_VALUE, "the row names no audio file", field=fields.names("audio")
        )

    def _span_key(self, key: str, start: float, end: float | None) -> str:
        """The key with the start, and the end too where another span came first from there."""
        key += f"@{_exact(start)}"
        until = "end" if end is None else _exact(end)
        return key if self._ends.setdefault(key, until) == until else f"{key}-{until}"

    def _values(self, fields: Fields) -> dict[str, Any]:
        start, end = _span(fields)
        needs_end = self.has_spans and start is not None and end is None
        duration = _duration(fields, is_of_span=needs_end)
        if needs_end and duration is not None:
            end = round((start or 0.0) + duration, 9)  # a sum of decimals stays one
        if not self.has_spans:
            if duration is None and start is not None and end is not None:
                duration = end - start
            start = end = None
        labels = {
            "transcript": fields.text("transcript"),
            "captions": fields.texts("caption"),
            "tags": fields.texts("tags") + _musical_tags(fields),
        }
        expected = [role for role in ("transcript", "caption", "tags") if role in fields.roles]
        if expected and not any(labels.values()):
            names = ", ".join(filter(None, map(fields.names, expected)))
            raise ManifestError(Reason.MISSING_VALUE, f"nothing is given for {names}", field=names)
        if "caption" in fields.roles and not labels["captions"]:
            fields.notes.append(f"{fields.names('caption')}: empty")
        is_sung = fields.flag("singing") or "lyrics" in map(str.lower, fields.record)
        sex = fields.text("sex")
        split = (fields.text("split") or "").lower()
        split = _SPLITS.get(split, split)
        return labels | {
            "start_s": start,
            "end_s": end,
            "declared_duration_s": duration,
            "language": fields.language(),
            "is_singing": is_sung and labels["transcript"] is not None,
            "speaker": fields.text("speaker"),
            "speaker_sex": _SEX.get(sex.lower()) if sex else None,
            "title": fields.text("title"),
            "licence": fields.text("licence"),
            "attribution": fields.text("attribution"),
            "split": split if split in SPLITS else None,
        }


def _span(fields: Fields) -> tuple[float | None, float | None]:
    try:
        start, end = fields.number("start"), fields.number("end")
    except ManifestError as error:
        raise ManifestError(Reason.BAD_SPAN, error.detail, field=error.field) from error
    if (start is not None and start < 0) or (end is not None and end <= (start or 0.0)):
        names = ", ".join(filter(None, (fields.names("start"), fields.names("end"))))
        raise ManifestError(
            Reason.BAD_SPAN,
            f"{start} s to {end} s is no span: 0 <= start < end is needed",
            field=names,
        )
    return start, end


def _duration(fields: Fields, *, is_of_span: bool) -> float | None:
    """Length of the file, or of the span that only it gives an end: then it must be good."""
    try:
        duration = fields.number("duration")
        if duration is not None and duration <= 0:
            raise ManifestError(Reason.MALFORMED, f"{duration:g} s", field=fields.names("duration"))
    except ManifestError as error:
        if is_of_span:
            detail = f"{error.detail}: the span has a start and no end, so a duration is needed"
            raise ManifestError(Reason.BAD_SPAN, detail, field=error.field) from error
        fields.notes.append(f"{error.field}: {error.detail}, left out")
        return None
    return duration


def _exact(seconds: float) -> str:
    """Seconds in full, as short as they can be written."""
    short = f"{seconds:g}"
    return short if float(short) == seconds else repr(seconds)


def _modality(fields: Fields) -> str | None:
    given = fields.text("modality")
    if given is not None and given.lower() not in MODALITIES:
        raise ManifestError(
            Reason.MALFORMED, f"{given!r} is none of {', '.join(MODALITIES)}", field="modality"
        )
    return given.lower() if given else None


def _described(fields: Fields, values: Mapping[str, Any]) -> dict[str, Any]:
    """What differs where `text` is the caption: nothing with another caption, or if it is sung."""
    given = {name: value for name, value in fields.record.items() if _is_text(name)}
    if not given or values["captions"]:
        return {}
    others = {name: value for name, value in fields.record.items() if name not in given}
    text, transcript = Fields(given).text("transcript"), Fields(others).text("transcript")
    if text is None or (fields.flag("singing") and transcript is None):
        return {}
    return {
        "transcript": transcript,
        "captions": (text,),
        "is_singing": values["is_singing"] and transcript is not None,
    }


def _is_text(name: str) -> bool:
    return name.strip().lower() == "text"


def _musical(record: Mapping[str, Any]) -> str | None:
    return "music" if any(key.lower() in _MUSICAL_KEYS for key in record) else None


def _musical_tags(fields: Fields) -> tuple[str, ...]:
    tempo = next((as_number(fields.record[name]) for name in fields.roles.get("tempo", ())), None)
    key = fields.text("key") if "tempo" in fields.roles or "title" in fields.roles else None
    tags = [f"{tempo:g} bpm"] if tempo else []
    return (*tags, f"key of {key}") if key else tuple(tags)
