"""Sentences of a user's text file, cut and filtered so that they are spoken as they are written."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from pipeline.errors import SettingsError

FEWEST_WORDS, MOST_WORDS = 2, 16
"""Words in a sentence that is kept."""

_PLAIN = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201c": " ", "\u201d": " ", '"': " "}
    | {"\u2013": ", ", "\u2014": ", "}
)
_TITLES = {"Mr": "Mister", "Mrs": "Missis", "Dr": "Doctor", "Prof": "Professor"}
_TITLE = re.compile(rf"\b({'|'.join(_TITLES)})\b\.?")
_SENTENCE_END = re.compile(r"(?<=[.?!;:])\s+")
_PAUSE = re.compile(r"(?<=,)\s+")
_WORD = re.compile(r"[A-Za-z]+(?:['-][A-Za-z]+)*'?")
_SPOKEN = re.compile(rf"{_WORD.pattern}(?:,? {_WORD.pattern})*[.?!]")
_LETTERS = frozenset({"a", "i", "o"})


@lru_cache(maxsize=4)
def read_sentences(path: Path) -> tuple[str, ...]:
    """Different sentences of a UTF-8 text file, one or several on a line, in their order.

    Long sentences are cut at commas. Whatever a voice would read otherwise than it is written
    (digits, abbreviations, initials, acronyms) is left out, and so is what has fewer than two or
    more than sixteen words. A line without a lower-case letter is taken as lower case.

    Raises:
        SettingsError: If the file cannot be read, or no sentence is left.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"cannot read speech.sentences {path} as UTF-8 text: {error}; give a text file with "
            "one sentence a line"
        ) from error
    kept = tuple(dict.fromkeys(text for line in lines for text in _sentences(line)))
    if not kept:
        raise SettingsError(
            f"no sentence of speech.sentences {path} can be spoken as it is written ({len(lines)} "
            f"lines): {FEWEST_WORDS} to {MOST_WORDS} words of ASCII letters are needed, with "
            "numbers and abbreviations written out"
        )
    return kept


def _sentences(line: str) -> Iterator[str]:
    text = unicodedata.normalize("NFKC", line).translate(_PLAIN)
    text = " ".join(text.replace("--", ", ").split()).replace(" ,", ",")
    if text.isupper():
        text = re.sub(r"\bi\b", "I", text.lower())
    text = _TITLE.sub(lambda found: _TITLES[found[1]], text)
    for sentence in _SENTENCE_END.split(text):
        pieces = [sentence]
        if len(sentence.split()) > MOST_WORDS:
            pieces = _PAUSE.split(sentence)
        for piece in pieces:
            if (spoken := _spoken(piece)) is not None:
                yield spoken


def _spoken(piece: str) -> str | None:
    """The piece as a sentence, or None if it would be read otherwise."""
    piece = piece.strip(" '").rstrip(" ,;:-")
    if piece and piece[-1] not in ".?!":
        piece += "."
    words = piece[:-1].replace(",", "").split()
    if not FEWEST_WORDS <= len(words) <= MOST_WORDS or not _SPOKEN.fullmatch(piece):
        return None
    if not all(map(_is_read_as_written, words)):
        return None
    return f"{piece[0].upper()}{piece[1:]}"


def _is_read_as_written(word: str) -> bool:
    """Whether a word is neither an initial nor an acronym nor an abbreviation."""
    if len(word) == 1:
        return word.lower() in _LETTERS
    if any(part[1:] != part[1:].lower() for part in re.split("['-]", word)):
        return False
    return any(letter in "aeiouyAEIOUY" for letter in word)
