"""A small generative grammar: rules of alternatives, slots that facts fill, correct articles.

In an alternative, `<rule>` stands for one of a rule's alternatives, `{slot}` for one of a slot's
phrases, `[...]` for a part that may be left out, and `a(n)` for the article that suits the next
word. An alternative that needs a slot without phrases is never chosen, so no text has a hole. No
text says a thing twice: slots that share the name before the underscore share their subject, and
a grammar may name slots that cover several subjects.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

_PIECE = re.compile(r"<(\w+)>|\{(\w+)\}|\[((?:[^\[\]]|\[[^\[\]]*\])*)\]")
_ARTICLE = re.compile(r"\ba\(n\) (\W*)(\w+(?:-\w+)*)")
_CONSONANT_SOUND = re.compile(
    r"(?:eu|ew|one\b|once|uni(?![dmn])|use|usu|uti|uto|ute|uk[re]|ukulele|uyg|ugand|u\b)",
    re.IGNORECASE,
)
_VOWEL_SOUND = re.compile(r"(?:[aeiou]|8|11\b|18\b|hour|honest|honou?r|heir)", re.IGNORECASE)
_SPELLED_OUT = re.compile(r"[A-Z][A-Z0-9]{0,2}|[B-DF-HJ-NP-TV-Z][B-DF-HJ-NP-TV-Z0-9]*")
_VOWEL_LETTERS = frozenset("AEFHILMNORSX")

_MAX_TRIES = 12
_DETAIL = (0.3, 0.6, 0.9, 0.9)

ValueT = TypeVar("ValueT")
Slots = Mapping[str, Sequence[str]]
"""Phrases of every slot that the facts can fill."""


@dataclass(frozen=True)
class Sentence:
    """A finished text, and the form it has: its words with the slots still open."""

    text: str
    form: str


@dataclass(frozen=True)
class _Piece:
    """One of: plain text, the name of a rule, the name of a slot, a part that may be left out."""

    text: str = ""
    rule: str = ""
    slot: str = ""
    optional: tuple[_Piece, ...] = ()


_Pieces = tuple[_Piece, ...]
Form = tuple[_Piece, ...]
"""A text whose slots are open: pieces of plain text and slots alone."""
Usable = Mapping[str, Sequence[_Pieces]]


class Grammar:
    """Rules by name; each a sequence of alternatives.

    Args:
        rules: Alternatives of each rule, by its name.
        covers: Subjects of slots that speak of more than the one in their name.
    """

    def __init__(
        self,
        rules: Mapping[str, Sequence[str]],
        covers: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.rules = rules
        self._parsed = {name: [_parse(text) for text in texts] for name, texts in rules.items()}
        self._covers = covers or {}
        # Few sets of slots occur, and each is asked for very often.
        self._usable_with = lru_cache(4096)(self._find_usable)

    def write(self, start: str, slots: Slots, rng: random.Random) -> Sentence | None:
        """One random text from a rule, terse or detailed; None if the slots do not suffice."""
        form = self.draw(start, slots, rng)
        return None if form is None else fill(form, slots, rng)

    def draw(self, start: str, slots: Slots, rng: random.Random) -> Form | None:
        """The form of a random text, its slots still open; None if the slots do not suffice."""
        present = frozenset(name for name, phrases in slots.items() if phrases)
        usable = self._usable_with(present)
        if not usable[start]:
            return None
        for _ in range(_MAX_TRIES):
            detail = _DETAIL[int(rng.random() * len(_DETAIL))]
            pieces: list[_Piece] = []
            _expand(pick(usable[start], rng), usable, rng, detail, pieces)
            subjects = [
                subject
                for piece in pieces
                if piece.slot
                for subject in self._covers.get(piece.slot, (piece.slot.split("_")[0],))
            ]
            if len(set(subjects)) == len(subjects):
                return tuple(pieces)
        return None

    def _find_usable(self, slots: frozenset[str]) -> Usable:
        """Alternatives of each rule that need no missing slot, by growing the set.

        A part that may be left out stays only where it can be filled.
        """
        usable: dict[str, list[_Pieces]] = {name: [] for name in self.rules}
        has_grown = True
        while has_grown:
            has_grown = False
            for name, alternatives in self._parsed.items():
                kept = [pieces for pieces in alternatives if _is_filled(pieces, usable, slots)]
                has_grown = has_grown or len(kept) > len(usable[name])
                usable[name] = kept
        return {
            name: [_without_holes(pieces, usable, slots) for pieces in alternatives]
            for name, alternatives in usable.items()
        }


def fill(form: Form, slots: Slots, rng: random.Random) -> Sentence:
    """A form with a random phrase in every slot."""
    text = "".join(pick(slots[piece.slot], rng) if piece.slot else piece.text for piece in form)
    shown = "".join(f"{{{piece.slot}}}" if piece.slot else piece.text for piece in form)
    return Sentence(finish(text), " ".join(shown.split()))


def num_subjects(form: Form) -> int:
    """How many things a form says."""
    return sum(1 for piece in form if piece.slot)


def _parse(text: str) -> _Pieces:
    pieces, end = [], 0
    for match in _PIECE.finditer(text):
        rule, slot, optional = match.groups()
        if match.start() > end:
            pieces.append(_Piece(text=text[end : match.start()]))
        pieces.append(
            _Piece(rule=rule or "", slot=slot or "", optional=_parse(optional) if optional else ())
        )
        end = match.end()
    if end < len(text):
        pieces.append(_Piece(text=text[end:]))
    return tuple(pieces)


def _expand(
    pieces: _Pieces, usable: Usable, rng: random.Random, detail: float, found: list[_Piece]
) -> None:
    for piece in pieces:
        if piece.rule:
            _expand(pick(usable[piece.rule], rng), usable, rng, detail, found)
        elif piece.optional:
            if rng.random() < detail:
                _expand(piece.optional, usable, rng, detail, found)
        else:
            found.append(piece)


def _is_filled(pieces: _Pieces, usable: Mapping[str, object], slots: frozenset[str]) -> bool:
    return all(
        bool(usable[piece.rule]) if piece.rule else not piece.slot or piece.slot in slots
        for piece in pieces
    )


def _without_holes(pieces: _Pieces, usable: Mapping[str, object], slots: frozenset[str]) -> _Pieces:
    return tuple(
        replace(piece, optional=_without_holes(piece.optional, usable, slots))
        for piece in pieces
        if _is_filled(piece.optional, usable, slots)
    )


def pick(values: Sequence[ValueT], rng: random.Random) -> ValueT:
    """One of them; the same for the same generator state on every Python version."""
    return values[int(rng.random() * len(values))]


def finish(text: str) -> str:
    """White space, articles and capitals put right."""
    text = re.sub(r"\s+([,.;:!?])", r"\1", " ".join(text.split()))
    text = _ARTICLE.sub(lambda match: f"{article(match[2])} {match[1]}{match[2]}", text)
    return re.sub(r"(^\W*|[.!?] )([^\W\d_])", lambda match: match[1] + match[2].upper(), text)


def article(word: str) -> str:
    """`a` or `an`, by the sound of the next word."""
    first, hyphen, _ = word.partition("-")
    is_letter = bool(hyphen) and len(first) == 1 and first.isalpha()  # x-ray, f-sharp
    if is_letter or _SPELLED_OUT.fullmatch(first):  # FM, MP3, R: read letter by letter
        return "an" if first[0].upper() in _VOWEL_LETTERS else "a"
    if _CONSONANT_SOUND.match(word):
        return "a"
    return "an" if _VOWEL_SOUND.match(word) else "a"


def join_words(words: Sequence[str], last: str = "and") -> str:
    """`x`, `x and y`, `x, y and z`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"
