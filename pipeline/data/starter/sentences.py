"""Sentences composed from a lexicon: what the starter corpus says."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase

import numpy as np

from pipeline.data.starter.lexicon import LEXICONS, Lexicon

KINDS = ("statement", "weather", "number", "count", "clock", "question", "greeting", "rich")
"""Kinds of composed text besides single digits and letters."""

_FIRST_HOUR, _LAST_HOUR = 3, 11


def compose(kind: str, language: str, rng: np.random.Generator) -> str:
    """One text of a kind.

    Args:
        kind: One of `KINDS`, or `digit` or `letter` for a single one.
        language: Tag of a lexicon.
        rng: Draws the words.

    Raises:
        ValueError: If kind or language are unknown.
    """
    if language not in LEXICONS:
        raise ValueError(f"no lexicon for language {language!r}; there are {', '.join(LEXICONS)}")
    lexicon = LEXICONS[language]
    if kind == "digit":
        return _pick(rng, lexicon.digits)
    if kind == "letter":
        return _pick(rng, ascii_uppercase)
    if kind == "count":
        return _count(lexicon, rng)
    if kind == "statement":
        return _sentence(_statement(lexicon, rng))
    if kind not in KINDS:
        raise ValueError(f"no kind of text {kind!r}; there are digit, letter, {', '.join(KINDS)}")
    templates = {
        "weather": lexicon.weather,
        "number": lexicon.count_templates,
        "clock": lexicon.clock,
        "question": lexicon.questions,
        "greeting": lexicon.greetings,
        "rich": lexicon.rich,
    }
    return _fill(_pick(rng, templates[kind]), lexicon, rng)


def _fill(template: str, lexicon: Lexicon, rng: np.random.Generator) -> str:
    return template.format(
        city=_pick(rng, lexicon.cities),
        number=_pick(rng, [word for value, word in enumerate(lexicon.numbers) if _counts(value)]),
        counted=_pick(rng, lexicon.counted),
        hour=_pick(rng, lexicon.numbers[_FIRST_HOUR : _LAST_HOUR + 1]),
        thing=_pick(rng, lexicon.things),
    )


def _counts(value: int) -> bool:
    """Whether the number word stands before a plural unchanged (`veintiún barcos` does not)."""
    return value >= 2 and value % 10 != 1


def _statement(lexicon: Lexicon, rng: np.random.Generator) -> str:
    if rng.random() < 0.25:
        return f"{_pick(rng, lexicon.things)} {_pick(rng, lexicon.states)}"
    subject = _pick(rng, lexicon.beings)
    if rng.random() < 0.5:
        return f"{subject} {_pick(rng, lexicon.handles)} {_pick(rng, lexicon.objects)}"
    parts = [subject, _pick(rng, lexicon.actions)]
    draw = rng.random()
    if draw < 0.4:
        parts.append(_pick(rng, lexicon.places))
    elif draw < 0.8:
        parts.append(_pick(rng, lexicon.moments))
    return " ".join(parts)


def _count(lexicon: Lexicon, rng: np.random.Generator) -> str:
    length = int(rng.integers(3, 6))
    draw = rng.random()
    if draw < 0.4:
        start = int(rng.integers(0, 95))
        words: Sequence[str] = lexicon.numbers[start : start + length]
    elif draw < 0.8:
        words = [_pick(rng, lexicon.digits) for _ in range(length)]
    else:
        words = [_pick(rng, ascii_uppercase) for _ in range(length)]
    return _sentence(", ".join(words))


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _pick(rng: np.random.Generator, items: Sequence[str]) -> str:
    return items[int(rng.integers(len(items)))]
