"""Sorting of music tags into instruments, styles, moods and other slots of a sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.data.descriptions.language_names import language_names
from pipeline.data.descriptions.vocabulary import noun_phrase
from pipeline.data.word_files import read_words

_FILE = Path(__file__).with_suffix(".yaml")
_PEOPLES = (
    "african american asian balkan brazilian british caribbean celtic christmas cuban egyptian "
    "european hawaiian jamaican latin mexican"
)
_NOT_PROPER = frozenset(("Polish", "Ewe", "Twi"))  # languages, but words of their own too
_TEMPO = re.compile(
    r"(?:(?P<word>slow|slower|medium|moderate|fast|medium fast|very slow|very fast) tempo"
    r"|(?P<up>up ?-?tempo))"
)
_MODERATE = {"medium": "mid-tempo", "moderate": "mid-tempo", "slower": "slow"}
_BPM = re.compile(r"(\d{2,3}) ?bpm")
_KEY = re.compile(r"(?:in |key of )?([a-g])((?: flat| sharp|#|b)?) (major|minor)")
_POOR = re.compile(r"(?:low|poor|bad|inferior) (?:audio |sound |recording )?(?:quality|fidelity)\b")
_SLOTS = ("instrument", "voice", "genre", "kind", "mood", "theme", "listed", "recording")
_CATEGORY = re.compile(r"(genre|instrument|mood): +(.+)", re.IGNORECASE)


@dataclass(frozen=True)
class MusicalTags:
    """Tags by the slot they fill; tags that fit nowhere are left out.

    Attributes:
        instruments: What plays, each with the article it needs.
        voices: Singers, each with its article.
        genres: Styles that stand before `piece` or `music`.
        kinds: What the piece is, in place of `piece`: `love song`.
        moods: Adjectives.
        themes: What it is for or about, with the preposition.
        listed: Words of every tag but those for tempo, key and theme.
        recordings: Adjectives that stand before `recording`.
        tempo: Adjective; None if no tag says it.
        bpm: Beats per minute; None if no tag says it.
        key: Musical key, such as `E flat major`; None if no tag states it.
    """

    instruments: tuple[str, ...]
    voices: tuple[str, ...]
    genres: tuple[str, ...]
    kinds: tuple[str, ...]
    moods: tuple[str, ...]
    themes: tuple[str, ...]
    listed: tuple[str, ...]
    recordings: tuple[str, ...]
    tempo: str | None
    bpm: int | None
    key: str | None

    @property
    def names_content(self) -> bool:
        """Whether any tag has a place in a sentence about what the music is."""
        return any((self.instruments, self.genres, self.kinds, self.moods, self.themes))


def without_category(tag: str) -> str:
    """The words of a tag such as `genre: hip hop`."""
    match = _CATEGORY.fullmatch(tag)
    return match[2] if match else tag


def sort_tags(tags: Sequence[str]) -> MusicalTags:
    """Tags of a piece of music by slot; a category given with the tag decides, else its words."""
    found: dict[str, list[str]] = {name: [] for name in _SLOTS}
    tempo = bpm = key = None
    for tag in tags:
        match = _CATEGORY.fullmatch(tag)
        words = _known("renamed").get(without_category(tag).casefold(), without_category(tag))
        words = _proper().sub(lambda name: name[0].title(), words)
        lower = words.casefold()
        if stated := _TEMPO.fullmatch(lower):
            word = stated["word"] or "fast"
            tempo = _MODERATE.get(word, word)
        elif stated := _BPM.fullmatch(lower):
            bpm = int(stated[1])
        elif stated := _KEY.fullmatch(lower):
            key = f"{stated[1].upper()}{stated[2]} {stated[3]}"
        elif lower not in _known("themes"):
            found["listed"].append(words)
        if lower.split()[0] in ("no", "not", "without") or _TEMPO.fullmatch(lower):
            continue
        if _POOR.match(lower) or lower in _known("recordings"):
            found["recording"].append(_known("recordings").get(lower, "low-quality"))
        elif slot := _slot_of(lower, match[1].lower() if match else None):
            found[slot].append(_phrase(words, slot))
    return MusicalTags(
        tuple(found["instrument"]),
        tuple(found["voice"]),
        tuple(found["genre"]),
        tuple(found["kind"]),
        tuple(found["mood"]),
        tuple(found["theme"]),
        tuple(found["listed"]),
        tuple(dict.fromkeys(found["recording"])),
        tempo,
        bpm,
        key,
    )


def _slot_of(tag: str, category: str | None) -> str | None:
    words = tag.split()
    style = " ".join(words[:-1]) if len(words) > 1 and words[-1] in ("music", "song") else tag
    mood = " ".join(words[:-1]) if len(words) == 2 and words[1] in ("mood", "music") else tag
    if category == "genre":
        return "genre"
    if category == "instrument":
        return "voice" if words[-1] in _known("voices") else "instrument"
    if tag in _known("themes") and (category == "mood" or tag not in _known("genres")):
        return "theme"
    if style in _known("genres"):
        return "genre"
    if mood in _known("moods"):
        return "mood"
    if (
        len(words) <= 4
        and words[-1] in _known("kinds")
        and len(words) + (words[-1] == "ballad") > 1
    ):
        return "kind"
    if len(words) <= 3 and words[-1] in _known("genre_heads"):
        return "genre"
    if words[-1] in _known("voices"):
        return "voice"
    is_played = words[-1] in _known("parts") or words[-1] in _known("instruments")
    if is_played or tag == "drum machine":
        return "instrument"
    return "mood" if category == "mood" else None


def _phrase(words: str, slot: str) -> str:
    lower = words.casefold()
    last = lower.split()[-1]
    if slot == "theme":
        theme: str = _known("themes")[lower]
        return theme
    if slot == "genre" and " " in lower and last in ("music", "song"):
        return words.rsplit(" ", 1)[0]
    if slot == "mood" and " " in lower and last in ("mood", "music"):
        return words.rsplit(" ", 1)[0]
    if slot == "kind":
        return words.removesuffix("s") if lower.endswith("songs") else words
    if slot == "instrument" and last in _known("instruments"):
        return words
    return noun_phrase(words).text if slot in ("instrument", "voice") else words


@cache
def _known(name: str) -> Any:
    """A list of the file as a set, or a table of it."""
    found = read_words(_FILE)[name]
    return frozenset(found) if isinstance(found, tuple) else found


@cache
def _proper() -> re.Pattern[str]:
    """Words that are written with a capital letter."""
    languages = [name.lower() for name in language_names().values() if name not in _NOT_PROPER]
    return re.compile(rf"\b(?:{'|'.join([*_PEOPLES.split(), 'middle eastern', *languages])})\b")
