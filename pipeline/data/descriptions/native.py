"""Voice descriptions in the language of the speech, for the languages of the lexicons but English.

`native/<language>.yaml` holds the words of a language: nouns for the speaker (`person`) and for the
voice (`voice`) by sex, where the empty key is for unknown; noun phrases for the kinds of `pitch`;
phrases for each step of the English scales of pace, tone, pauses, recording and room, so that words
are chosen by the same ranges; and the grammar (`rules`), which starts with `speech`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.data.descriptions.grammar import Grammar
from pipeline.data.descriptions.vocabulary import PITCH_BY_SEX, SCALES
from pipeline.data.word_files import read_words

NATIVE_LANGUAGES = ("de", "es", "fr", "it", "pt")
"""Primary BCP 47 subtags of the languages that have a phrasebook."""
SCALES_OF_SPEECH = {
    scale.slot: scale
    for scale in SCALES
    if scale.slot in ("pace", "tone", "pauses", "recording", "room")
    and scale.modalities == ("speech",)
}
"""Scales that a phrasebook has words for, by their slot."""


def phrasebook_of(language: str) -> Mapping[str, Any]:
    """The words of one of `NATIVE_LANGUAGES`."""
    words: Mapping[str, Any] = read_words(Path(__file__).parent / "native" / f"{language}.yaml")
    return words


@cache
def native_grammar(language: str) -> Grammar:
    """The grammar of one of `NATIVE_LANGUAGES`."""
    return Grammar(phrasebook_of(language)["rules"])


def voice_slots(
    language: str, sex: str | None, attributes: Mapping[str, float], left_out: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """Phrases for a voice in a language; empty if there is no phrasebook for it.

    Args:
        language: Primary BCP 47 subtag.
        sex: female, male or None.
        attributes: Measured values by name.
        left_out: Slots that people spoke of already.
    """
    if language not in NATIVE_LANGUAGES:
        return {}
    book = phrasebook_of(language)
    known_sex = sex if sex in ("female", "male") else ""
    people = book["person"][known_sex]
    slots: dict[str, tuple[str, ...]] = {
        "person": people,
        "person_human": people[:1],
        "person_voice": book["voice"][known_sex],
    }
    for slot, scale in SCALES_OF_SPEECH.items():
        if (value := attributes.get(scale.attribute)) is not None:
            slots[slot] = book[slot][scale.step(value)]
    pitch_hz = attributes.get("pitch_median_hz")
    if pitch_hz is not None:
        kind = next(kind for bound, kind in PITCH_BY_SEX[known_sex] if pitch_hz < bound)
        slots["pitch"] = book["pitch"][kind]
    return {name: phrases for name, phrases in slots.items() if phrases and name not in left_out}
