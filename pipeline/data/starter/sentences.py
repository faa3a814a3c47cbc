"""Texts of the starter corpus, composed by a grammar."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from string import ascii_uppercase
from typing import Literal

import numpy as np

from pipeline.data.starter.lexicon import LANGUAGES, Grammar, grammar_of

Kind = Literal["digit", "digits", "letter", "number", "time", "word", "phrase", "sentence", "open"]
"""Kinds of text. `digits` are several in a row, `time` is a clock time or a date, `word` any word
of the grammar by itself; `open` are English sentences of a file of the user."""

_SLOT = re.compile(r"\{(\w+)\}")
_REDRAWS = 8


def compose(kind: Kind, language: str, rng: np.random.Generator) -> str:
    """One text of a kind, written as it is spoken.

    Args:
        kind: Kind of text; any but `open`.
        language: Tag of a grammar.
        rng: Draws the words.

    Raises:
        ValueError: If kind or language are unknown.
    """
    if language not in LANGUAGES:
        raise ValueError(f"no grammar for language {language!r}; there are {', '.join(LANGUAGES)}")
    grammar = grammar_of(language)
    if kind == "digit":
        return _pick(rng, grammar.digits)
    if kind == "letter":
        return _pick(rng, ascii_uppercase)
    if kind == "word":
        return _pick(rng, vocabulary(language))
    if kind == "digits":
        between = ", " if rng.random() < 0.5 else " "
        return between.join(_pick(rng, grammar.digits) for _ in range(int(rng.integers(2, 6))))
    if kind not in grammar.rules:
        raise ValueError(f"no kind of text {kind!r} can be composed")
    text = _expand(grammar, kind, rng)
    return f"{text[0].upper()}{text[1:]}" if text[-1] in ".?!" else text


@lru_cache(maxsize=16)
def vocabulary(language: str) -> tuple[str, ...]:
    """All words of a language's grammar, in alphabetical order; single letters are left out."""
    words = set()
    for alternatives in grammar_of(language).rules.values():
        for text in alternatives:
            words |= set(re.sub(r"[.,?!¿¡]", " ", _SLOT.sub(" ", text)).split())
    return tuple(sorted(word for word in words if len(word) > 1 and not _is_repeated(word, words)))


def _is_repeated(word: str, words: set[str]) -> bool:
    """Whether a word is another one that begins a sentence."""
    return word != word.lower() and word.lower() in words


def _expand(grammar: Grammar, name: str, rng: np.random.Generator) -> str:
    """A rule with all slots filled; the same slot twice in an alternative is filled differently."""
    seen: set[str] = set()

    def fill(found: re.Match[str]) -> str:
        """An expansion of a slot that was not used yet, if a few draws find one."""
        for _ in range(_REDRAWS):
            text = _expand(grammar, found[1], rng)
            if text not in seen:
                break
        seen.add(text)
        return text

    return _SLOT.sub(fill, _pick(rng, grammar.rules[name]))


def _pick(rng: np.random.Generator, items: Sequence[str]) -> str:
    return items[int(rng.integers(len(items)))]
