"""Reading time of a text, and the parts in which a long text is read."""

from __future__ import annotations

import hashlib
import unicodedata

import sentencex

LONGEST_PART_S = 20.0
"""Expected duration of the longest text that is read in one go, as long as training clips are."""

_SECONDS_PER_CHARACTER = 0.15
_SECONDS_PER_WIDE_CHARACTER = 0.5
_SECONDS_AROUND_SPEECH = 2.0
_SINGING_STRETCH = 2.5
_SLOWNESS = 2.2
"""How much longer than an ordinary reader, at 15 letters a second, a slow one takes."""
_BLANK_LETTERS = frozenset("\u115f\u1160\u3164\uffa0")
"""Hangul fillers: letters to Unicode, and without sound."""
_CLAUSE_ENDS = frozenset(",;:\u2013\u2014\u060c\u061b\u3001\uff0c\uff1b\uff1a")
_DEFAULT_LANGUAGE = "en"


def has_words(text: str) -> bool:
    """Whether a text can be spoken: it holds a letter or a digit of any script."""
    return any(character.isalnum() and character not in _BLANK_LETTERS for character in text)


def reading_time_s(transcript: str) -> float:
    """Seconds a slow reader takes: 0.15 for a letter, 0.5 for a digit or an ideograph, each of
    which is a syllable or more."""
    wide = sum(
        character.isdigit() or unicodedata.east_asian_width(character) in "WF"
        for character in transcript
    )
    narrow = len(transcript) - wide
    return narrow * _SECONDS_PER_CHARACTER + wide * _SECONDS_PER_WIDE_CHARACTER


def expected_s(transcript: str, *, is_singing: bool = False) -> float:
    """Seconds an ordinary reader or singer takes."""
    return reading_time_s(transcript) * (_SINGING_STRETCH if is_singing else 1.0) / _SLOWNESS


def speech_bounds_s(transcript: str, *, is_singing: bool = False) -> tuple[float, float]:
    """Shortest and longest time a transcript may take, where the stop head decides between.

    The cap ends a request whose stop is missed; the floor, an eighth of a slow reading, keeps a
    spurious stop at the start from cutting the words off.
    """
    slow_s = reading_time_s(transcript)
    stretch = _SINGING_STRETCH if is_singing else 1.0
    return slow_s / 8, _SECONDS_AROUND_SPEECH + slow_s * stretch


def parts_of(text: str, language: str | None, longest_s: float) -> list[str]:
    """A text in parts that are each expected to take at most `longest_s` to read.

    Whole sentences stay together as far as they fit; a longer sentence is divided after a clause,
    else between words, else between characters. Every part has something to say.

    Args:
        text: Cleaned text, as `clean_text` gives it.
        language: BCP 47 tag of the text.
        longest_s: Expected duration of a part at most, seconds.

    Returns:
        The parts in order; together they are the text, but for spaces between them.
    """
    if expected_s(text) <= longest_s:
        return [text]
    sentences = sentencex.segment((language or _DEFAULT_LANGUAGE).lower(), text)
    pieces = [piece for sentence in sentences for piece in _divided(sentence, longest_s)]
    parts: list[str] = []
    for piece in pieces:
        fits = bool(parts) and expected_s(parts[-1] + piece) <= longest_s
        # A part without words has nothing to say by itself, whatever its length.
        if parts and (fits or not has_words(piece) or not has_words(parts[-1])):
            parts[-1] += piece
        else:
            parts.append(piece)
    return [part.strip() for part in parts]


def part_seed(seed: int, index: int) -> int:
    """Seed of a part: the request's own for the first, derived from it for the others."""
    if index == 0:
        return seed
    digest = hashlib.sha256(f"{seed}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _divided(sentence: str, longest_s: float) -> list[str]:
    """A sentence in pieces that fit; one that fits is one piece."""
    pieces = []
    while expected_s(sentence) > longest_s:
        end = _cut(sentence, longest_s)
        pieces.append(sentence[:end])
        sentence = sentence[end:]
    return [*pieces, sentence] if sentence else pieces


def _cut(sentence: str, longest_s: float) -> int:
    """Index at which to divide a sentence that is too long: the last good one that fits."""
    spent_s, clause, word, anywhere = 0.0, 0, 0, 0
    for index, character in enumerate(sentence):
        spent_s += expected_s(character)
        if spent_s > longest_s:
            break
        # A mark belongs to the character before it.
        following = sentence[index + 1 : index + 2]
        if unicodedata.combining(following or "x") or following in ("\u200c", "\u200d"):
            continue
        anywhere = index + 1
        if character.isspace():
            word = index + 1
            clause = index + 1 if sentence[index - 1] in _CLAUSE_ENDS else clause
        elif character in _CLAUSE_ENDS and not following.isalnum():
            clause = index + 1
    # A clause that is very short leaves the rest no shorter: words are then as good.
    return (clause if clause > word // 3 else 0) or word or max(1, anywhere)
