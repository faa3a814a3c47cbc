"""Values of a record by role, for keys of any name and values of any type."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from model.text import clean_text
from pipeline.data.corpora.manifests import ManifestError, read_list
from pipeline.data.rejects import Reason


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ROLES: dict[str, tuple[str, ...]] = {
    "audio": _words(
        "file filename file_name filepath file_path audio audio_path audio_file audio_filepath "
        "audio_filename path wav wav_path wav_file clip uri ytid"
    ),
    "id": _words("clip_id id utt_id utterance_id segment_id"),
    "transcript": _words("transcript transcription text sentence normalized_text lyrics"),
    "caption": _words("caption captions description descriptions desc"),
    "tags": _words(
        "tags tag label labels category categories class keywords aspect_list genre genres style "
        "styles instrument instruments mood moods"
    ),
    "modality": _words("modality"),
    "language": _words("language lang locale"),
    "speaker": _words("speaker speaker_id client_id voice reader"),
    "sex": _words("speaker_sex sex gender"),
    "title": _words("title"),
    "licence": _words("licence license"),
    "attribution": _words("attribution artist author credit"),
    "duration": _words("declared_duration_s duration duration_s duration_seconds length_s"),
    "start": _words("start_s start start_time begin offset"),
    "end": _words("end_s end end_time"),
    "split": _words("split subset partition"),
    "singing": _words("is_singing singing"),
    "tempo": _words("tempo_bpm bpm tempo"),
    "key": _words("key musical_key"),
}
"""Role of a value, and the keys that have it, the preferred one first."""
_NAN_WORDS = frozenset(("NaN", "nan", "-NaN", "-nan"))
_MISSING_WORDS = _NAN_WORDS | frozenset(_words("NA N/A n/a <NA> #N/A #NA NaT None NULL")) | {""}
"""Words that spreadsheets and data frames write for a missing value; `null` is German for zero."""
_ALWAYS_LISTS = frozenset({"aspect_list"})
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z0-9]{2,8})*")


def roles_of(keys: Iterable[str]) -> dict[str, list[str]]:
    """Keys of a record by role, in the order of `ROLES`."""
    plain = {key.strip().lower(): key for key in keys}
    found = {
        role: [plain[name] for name in names if name in plain] for role, names in ROLES.items()
    }
    return {role: given for role, given in found.items() if given}


def is_missing(value: Any) -> bool:
    """Whether a value is missing: null, NaN, empty, or a word that tables write for that."""
    if isinstance(value, str):
        return value.strip() in _MISSING_WORDS
    return value is None or (isinstance(value, float) and math.isnan(value))


class Fields:
    """A record read by role; harmless oddities are noted.

    Args:
        record: Values by key: JSON types, or the strings of a table.
    """

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.record = record
        self.roles = roles_of(record)
        self.notes: list[str] = []

    def names(self, role: str) -> str | None:
        """Keys of a role, for messages."""
        return ", ".join(self.roles.get(role, ())) or None

    def text(self, role: str) -> str | None:
        """The first text of a role that is not empty, cleaned."""
        for name in self.roles.get(role, ()):
            cleaned = self._text(name, self.record[name])
            if cleaned:
                return cleaned
        return None

    def texts(self, role: str) -> tuple[str, ...]:
        """Every text of a role, cleaned: of lists, of lists written as text, of tags in a row."""
        found = [text for name in self.roles.get(role, ()) for text in self._items(role, name)]
        return tuple(dict.fromkeys(found))

    def number(self, role: str) -> float | None:
        """A finite number; None if empty.

        Raises:
            ManifestError: If it is something else.
        """
        for name in self.roles.get(role, ()):
            value = self.record[name]
            is_nan_word = isinstance(value, str) and value.strip() in _NAN_WORDS
            if is_missing(value) and not is_nan_word:
                continue
            number = as_number(value)
            if number is None:
                raise ManifestError(
                    Reason.MALFORMED, f"{value!r} is not a finite number", field=name
                )
            return number
        return None

    def flag(self, role: str) -> bool:
        """Whether a truth value is given and true."""
        for name in self.roles.get(role, ()):
            value = self.record[name]
            if isinstance(value, bool):
                return value
            if str(value).strip().lower() in ("true", "1", "yes"):
                return True
        return False

    def language(self) -> str | None:
        """A BCP 47 tag in lower case."""
        given = self.text("language")
        tag = language_tag(given) if given else None
        if given and tag is None:
            self.notes.append(f"language: {given!r} is not a BCP 47 tag, left out")
        return tag

    def _text(self, name: str, value: Any) -> str | None:
        if is_missing(value):
            self._note_missing(name, value)
            return None
        if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
            value = " ".join(value)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            self.notes.append(f"{name}: {type(value).__name__} where text belongs, left out")
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # data frames make floats of numbers where one is missing
        cleaned, note = clean_text(str(value))
        if note:
            self.notes.append(f"{name}: {note}")
        return cleaned or None

    def _note_missing(self, name: str, value: Any) -> None:
        """Note that a word, which may be meant literally, was read as a missing value."""
        if isinstance(value, str) and value.strip():
            self.notes.append(f"{name}: {value.strip()!r} taken for a missing value")

    def _items(self, role: str, name: str) -> list[str]:
        value = self.record[name]
        if isinstance(value, str) and value.strip():
            is_listed = value.strip().startswith("[") or name.lower() in _ALWAYS_LISTS
            listed = read_list(value) if is_listed else None
            if is_listed and listed is None:
                self.notes.append(f"{name}: not a list of strings, left out: {value[:60]!r}")
                return []
            if listed is not None:
                value = list(listed)
            elif role == "tags":
                value = re.split(r"[,;|]", value.replace("_", " "))
        values = value if isinstance(value, list | tuple) else [value]
        return [text for item in values if (text := self._text(name, item))]


def language_tag(text: str) -> str | None:
    """A BCP 47 tag in lower case and with hyphens, as rows have it; None if it is none."""
    tag = text.lower().replace("_", "-")
    return tag if _LANGUAGE.fullmatch(tag) else None


def as_number(value: Any) -> float | None:
    """A finite number of a number or its text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
