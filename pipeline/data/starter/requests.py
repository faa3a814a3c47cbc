"""Wordings as people send them: with a request before, a word between, a place or a time after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.data.starter.dsp import Generator
from pipeline.data.word_files import read_words

_FILE = Path(__file__).with_name("requests.yaml")
_OPENING_SHARE = 0.35
_QUALITY_SHARE = 0.3
_PLACE_SHARE = 0.5


def as_requests(rng: Generator, texts: Sequence[str], kind: str) -> list[str]:
    """Every text as a sentence, most of them among words that say nothing about the clip.

    Args:
        rng: Source of the words.
        texts: Noun phrases, or whole clauses that begin with "it is".
        kind: `sound` or `music`.
    """
    words = read_words(_FILE)[kind]
    return [as_sentence(_among(rng, text, words)) for text in texts]


def as_sentence(text: str) -> str:
    """The text with a capital and a full stop."""
    return f"{text[0].upper()}{text[1:]}."


def _among(rng: Generator, text: str, words: dict[str, Sequence[str]]) -> str:
    article, _, rest = text.partition(" ")
    if "qualities" in words and article in ("a", "an") and rng.random() < _QUALITY_SHARE:
        quality = _drawn(rng, words["qualities"])
        text = f"{'an' if quality[0] in 'aeiou' else 'a'} {quality} {rest}"
    if not text.startswith("it is ") and rng.random() < _OPENING_SHARE:
        text = f"{_drawn(rng, words['openings'])} {text}"
    if rng.random() < _PLACE_SHARE:
        text = f"{text} {_drawn(rng, words['places'])}"
    return text


def _drawn(rng: Generator, words: Sequence[str]) -> str:
    return words[int(rng.integers(len(words)))]
