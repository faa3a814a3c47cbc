"""Normalisation of transcripts and recognised text before they are compared.

Recognisers write "7:30", "Dr." and "colour" where a transcript says "seven thirty", "doctor" and
"color". A numeral can be read in several ways (1984 as a year or as a count, 123 digit by digit);
the pair of readings with the fewest errors counts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

_WRITTEN = {
    "mr": "mister", "mrs": "missus", "missis": "missus", "dr": "doctor", "prof": "professor",
    "ok": "okay", "vs": "versus", "etc": "etcetera",
}  # fmt: skip
_AMERICAN = (
    (re.compile(r"(?<=[a-z]{2})our(?=(?:s|ed|ing|ite|ites|able|ful|less|hood)?$)"), "or"),
    (re.compile(r"(?<=[a-z]{2})ys(?=(?:e|es|ed|ing|er|ers)$)"), "yz"),
    (re.compile(r"(?<=[a-z]{2})is(?=(?:e|es|ed|ing|er|ers|ation|ations)$)"), "iz"),
    (re.compile(r"(?<=[bt])re(?=s?$)"), "er"),
    (re.compile(r"(?<=[ae])ll(?=(?:ed|ing|er|ers|or)$)"), "l"),
    (re.compile(r"^(defen|licen|preten|offen)c(?=es?$)"), r"\1s"),
    (re.compile(r"(?<=alog)ue(?=s?$)"), ""),
    (re.compile(r"^grey(?=s|er|est|ish|$)"), "gray"),
    (re.compile(r"^programme(?=s?$)"), "program"),
    (re.compile(r"^plough"), "plow"),
)  # fmt: skip
_CLOCK = re.compile(r"\b(\d{1,2}):(\d{2})\b")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_ORDINAL = re.compile(r"\b(\d+)(?:st|nd|rd|th)\b")
_WAYS = ("count", "pairs", "digits")
_MOST_DIGITS = 15  # longer numerals are read digit by digit


@dataclass(frozen=True)
class Errors:
    """Edits between a transcript and the recognised text.

    Attributes:
        word_edits: Substitutions, insertions and deletions of words.
        words: Number of words of the transcript.
        character_edits: Number of edits of characters, spaces included.
        characters: Number of characters of the transcript.
        missing_at_end: Number of words at the end of the transcript that were not recognised.
        extra_at_end: Number of words recognised beyond the end of the transcript.
        skipped: Number of words of the transcript that were not recognised at all.
        repeated: Number of inserted words that say once more what stands directly before or after.
    """

    word_edits: int
    words: int
    character_edits: int
    characters: int
    missing_at_end: int
    extra_at_end: int
    skipped: int = 0
    repeated: int = 0


def count_errors(
    transcript: str, heard: str, language: str = "en", *, american_spelling: bool = True
) -> Errors:
    """Errors of the recognised text, with the readings of numerals that agree best.

    Args:
        transcript: Text that was to be spoken.
        heard: Text of the recogniser.
        language: BCP 47 tag of the language in which numerals are read.
        american_spelling: Count British and American spellings as the same word.

    Raises:
        ValueError: If the transcript has no word.
        ImportError: If the extra `eval` is not installed.
    """
    ours = readings(transcript, language, american_spelling=american_spelling)
    theirs = readings(heard, language, american_spelling=american_spelling)
    if not all(ours):
        raise ValueError(f"the transcript {transcript!r} has no word in it")
    pairs = [_errors(said, found) for said in ours for found in theirs]
    return min(pairs, key=lambda found: (found.word_edits, found.character_edits))


def has_words(transcript: str) -> bool:
    """Whether a transcript has a word; punctuation alone is none."""
    return any(unicodedata.category(character)[0] in "LN" for character in transcript)


def readings(
    text: str, language: str = "en", *, american_spelling: bool = True
) -> list[tuple[str, ...]]:
    """Words of a text, lower case, without punctuation; one list for each reading of its numerals.

    Args:
        text: A transcript, or the text of a recogniser.
        language: BCP 47 tag.
        american_spelling: Whether British spellings become American ones; English only.
    """
    tag = language.lower().split("-")[0]
    plain = unicodedata.normalize("NFKC", text).lower().replace("\u2019", "'")
    ways = _WAYS if _NUMBER.search(plain) else _WAYS[:1]
    found = [_words(_spell_numerals(plain, tag, way), tag, american_spelling) for way in ways]
    return list(dict.fromkeys(found))


def _words(text: str, tag: str, american_spelling: bool) -> tuple[str, ...]:
    if tag == "en":
        text = text.replace("&", " and ").replace("%", " percent ")
        text = re.sub(r"\bo clock\b", "o'clock", text)
        text = re.sub(r"\b([ap])\.\s?m\b\.?", r"\1m", text)
    # An apostrophe joins (o'clock, don't); everything else that is no letter separates.
    joined = re.sub(r"(?<=\w)'(?=\w)", "", text)
    kept = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in joined).split()
    if tag in ("zh", "ja", "th"):
        return tuple("".join(kept))
    if tag != "en":
        return tuple(kept)
    words = [_WRITTEN.get(word, word) for word in kept]
    # "one hundred and two" and "one hundred two" are one number.
    words = [
        word
        for place, word in enumerate(words)
        if not (word == "and" and place and words[place - 1] in ("hundred", "thousand", "million"))
    ]
    return tuple(_american(word) if american_spelling else word for word in words)


@lru_cache(maxsize=4096)
def _american(word: str) -> str:
    for pattern, replacement in _AMERICAN:
        word = pattern.sub(replacement, word)
    return word


def _spell_numerals(text: str, tag: str, way: str) -> str:
    if not _NUMBER.search(text):
        return text
    if tag == "en":
        text = re.sub(r"[$](\d[\d,.]*\d|\d)", r"\1 dollars", text)
        text = re.sub(r"[£](\d[\d,.]*\d|\d)", r"\1 pounds", text)
        text = _CLOCK.sub(_clock, text)
        text = _ORDINAL.sub(lambda found: f" {_spoken(int(found[1]), tag, 'ordinal')} ", text)
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    return _NUMBER.sub(lambda found: f" {_numeral(found[0], tag, way)} ", text)


def _clock(found: re.Match[str]) -> str:
    hour, minute = found[1], found[2]
    if minute == "00":
        return f"{hour} o'clock"
    return f"{hour} oh {minute[1]}" if minute[0] == "0" else f"{hour} {minute}"


def _numeral(digits: str, tag: str, way: str) -> str:
    if "." in digits:
        whole, part = digits.split(".")
        point = " point " if tag == "en" else " "
        return _numeral(whole, tag, way) + point + _numeral(part, tag, "digits")
    if way == "digits" or len(digits) > _MOST_DIGITS or (len(digits) > 1 and digits[0] == "0"):
        return " ".join(_spoken(int(digit), tag) for digit in digits)
    if way == "pairs" and len(digits) == 4:
        return _spoken(int(digits), tag, "year")
    if way == "pairs" and len(digits) == 3:
        return f"{_spoken(int(digits[0]), tag)} {_numeral(digits[1:], tag, 'count')}"
    return _spoken(int(digits), tag)


@lru_cache(maxsize=4096)
def _spoken(number: int, tag: str, form: str = "cardinal") -> str:
    num2words = _num2words()
    try:
        return str(num2words(number, lang=tag, to=form)).replace("-", " ")
    except NotImplementedError:  # a language, or a form of it, that the library does not know
        return str(number)


def _num2words() -> Callable[..., Any]:
    try:
        from num2words import num2words
    except ImportError as error:
        raise ImportError(
            "numerals are spelled by num2words: install the extra `eval` (pip install "
            "'audiocalm[eval]')"
        ) from error
    spell: Callable[..., Any] = num2words
    return spell


def _errors(said: tuple[str, ...], heard: tuple[str, ...]) -> Errors:
    import jiwer

    if not heard:
        count = sum(map(len, said)) + len(said) - 1
        return Errors(len(said), len(said), count, count, len(said), 0, skipped=len(said))
    reference, hypothesis = " ".join(said), " ".join(heard)
    words = jiwer.process_words(reference, hypothesis)
    characters = jiwer.process_characters(reference, hypothesis)
    last = words.alignments[0][-1]
    missing = last.ref_end_idx - last.ref_start_idx if last.type == "delete" else 0
    extra = last.hyp_end_idx - last.hyp_start_idx if last.type == "insert" else 0
    return Errors(
        words.substitutions + words.insertions + words.deletions,
        len(said),
        characters.substitutions + characters.insertions + characters.deletions,
        len(reference),
        missing,
        extra,
        skipped=words.deletions,
        repeated=sum(_repeated(heard, chunk) for chunk in words.alignments[0]),
    )


def _repeated(heard: tuple[str, ...], chunk: Any) -> int:
    """Words of an insertion that equal as many words directly before or after it."""
    start, end = chunk.hyp_start_idx, chunk.hyp_end_idx
    size = end - start
    if chunk.type != "insert":
        return 0
    inserted = heard[start:end]
    return size if inserted in (heard[max(0, start - size) : start], heard[end : end + size]) else 0
