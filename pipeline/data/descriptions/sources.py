"""Sentence parts for sound labels: better names, and clauses about what a source does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.data.descriptions.grammar import join_words
from pipeline.data.descriptions.vocabulary import NounPhrase, noun_phrase
from pipeline.data.word_files import read_words

_MAX_SOURCES = 3


def source_slots(labels: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Slots for what is heard in a sound with these labels.

    A label may hold several names of one thing, with commas, as in AudioSet: each wording takes
    one of them.
    """
    names = [label.split(", ") for label in labels[:_MAX_SOURCES]]
    known = _words("clauses")
    slots: dict[str, tuple[str, ...]] = {}
    for number in range(max(len(choices) for choices in names)):
        chosen = [choices[min(number, len(choices) - 1)] for choices in names]
        phrases = [_said(name) for name in chosen]
        subjects = join_words([phrase.text for phrase in phrases])
        is_plural = len(phrases) > 1 or phrases[0].is_plural
        kind = "source_plural" if is_plural else "source_singular"
        for slot in ("source", kind):
            slots[slot] = (*slots.get(slot, ()), subjects)
        if all(name in known for name in chosen):
            clauses = join_words([known[name] for name in chosen])
            slots["source_clause"] = (*slots.get("source_clause", ()), clauses)
    return slots


def _said(name: str) -> NounPhrase:
    if (text := _words("renamed").get(name)) is not None:
        return NounPhrase(text, is_plural=noun_phrase(name).is_plural)
    return noun_phrase(name)


def _words(name: str) -> Mapping[str, str]:
    table: Mapping[str, str] = read_words(Path(__file__).with_suffix(".yaml"))[name]
    return table
