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
from dataclasses import dataclass
from functools import lru_cache

_PIECE = re.compile(r"<(\w+)>|\{(\w+)\}|\[((?:[^\[\]]|\[[^\[\]]*\])*)\]")
_SLOT = re.compile(r"\{(\w+)\}")
_ARTICLE = re.compile(r"\ba\(n\) (\W*)(\w+)")
_CONSONANT_SOUND = re.compile(
    r"(?:eu|ew|one\b|once|uni(?![dmn])|use|usu|uti|uto|ute|uk[re]|ukulele|uyg|ugand|u\b)",
    re.IGNORECASE,
)
_VOWEL_SOUND = re.compile(r"(?:[aeiou]|8|11\b|18\b|hour|honest|honou?r|heir)", re.IGNORECASE)
_SPELLED_OUT = re.compile(r"[A-Z][A-Z0-9]{0,2}|[B-DF-HJ-NP-TV-Z][B-DF-HJ-NP-TV-Z0-9]*")
_VOWEL_LETTERS = frozenset("AEFHILMNORSX")

_MAX_TRIES = 12
_DETAIL = (0.3, 0.6, 0.9, 0.9)

Slots = Mapping[str, Sequence[str]]
"""Phrases of every slot that the facts can fill."""


@dataclass(frozen=True)
class Sentence:
    """A finished text, and the form it has: its words with the slots still open."""

    text: str
    form: str

    @property
    def num_subjects(self) -> int:
        """How many things it says."""
        return len(_SLOT.findall(self.form))


class Grammar:
    """Rules by name; each a sequence of alternatives.

    Args:
        rules: By name.
        covers: Subjects of slots that speak of more than the one in their name.
    """

    def __init__(
        self,
        rules: Mapping[str, Sequence[str]],
        covers: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.rules = rules
        self._covers = covers or {}
        # Few sets of slots occur, and each is asked for very often.
        self._usable_with = lru_cache(4096)(self._find_usable)

    def write(self, start: str, slots: Slots, rng: random.Random) -> Sentence | None:
        """One random text from a rule, terse or detailed; None if the slots do not suffice."""
        present = frozenset(name for name, phrases in slots.items() if phrases)
        usable = self._usable_with(present)
        if not usable[start]:
            return None
        for _ in range(_MAX_TRIES):
            detail = _DETAIL[int(rng.random() * len(_DETAIL))]
            form = self._expand(f"<{start}>", usable, present, rng, detail)
            subjects = [
                subject
                for name in _SLOT.findall(form)
                for subject in self._covers.get(name, (name.split("_")[0],))
            ]
            if len(set(subjects)) == len(subjects):
                text = _SLOT.sub(lambda match: pick(slots[match[1]], rng), form)
                return Sentence(finish(text), " ".join(form.split()))
        return None

    def _find_usable(self, slots: frozenset[str]) -> dict[str, list[str]]:
        """Alternatives of each rule that need no missing slot, by growing the set."""
        usable: dict[str, list[str]] = {name: [] for name in self.rules}
        has_grown = True
        while has_grown:
            has_grown = False
            for name, alternatives in self.rules.items():
                kept = [text for text in alternatives if _is_filled(text, usable, slots)]
                has_grown = has_grown or len(kept) > len(usable[name])
                usable[name] = kept
        return usable

    def _expand(
        self,
        text: str,
        usable: Mapping[str, Sequence[str]],
        slots: frozenset[str],
        rng: random.Random,
        detail: float,
    ) -> str:
        def replace(match: re.Match[str]) -> str:
            rule, slot, optional = match.groups()
            if rule:
                return self._expand(pick(usable[rule], rng), usable, slots, rng, detail)
            if slot:
                return match[0]
            if not _is_filled(optional, usable, slots) or rng.random() >= detail:
                return ""
            return self._expand(optional, usable, slots, rng, detail)

        return _PIECE.sub(replace, text)


def _is_filled(text: str, usable: Mapping[str, Sequence[str]], slots: frozenset[str]) -> bool:
    return all(
        (bool(usable[rule]) if rule else slot in slots) if (rule or slot) else True
        for rule, slot, _optional in _PIECE.findall(text)
    )


def pick(values: Sequence[str], rng: random.Random) -> str:
    """One of them; the same for the same generator state on every Python version."""
    return values[int(rng.random() * len(values))]


def finish(text: str) -> str:
    """White space, articles and capitals put right."""
    text = re.sub(r"\s+([,.;:!?])", r"\1", " ".join(text.split()))
    text = _ARTICLE.sub(lambda match: f"{article(match[2])} {match[1]}{match[2]}", text)
    return re.sub(r"(^\W*|[.!?] )([a-z])", lambda match: match[1] + match[2].upper(), text)


def article(word: str) -> str:
    """`a` or `an`, by the sound of the next word."""
    if _SPELLED_OUT.fullmatch(word):  # FM, MP3, R: read letter by letter
        return "an" if word[0] in _VOWEL_LETTERS else "a"
    if _CONSONANT_SOUND.match(word):
        return "a"
    return "an" if _VOWEL_SOUND.match(word) else "a"


def join_words(words: Sequence[str], last: str = "and") -> str:
    """`x`, `x and y`, `x, y and z`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"
