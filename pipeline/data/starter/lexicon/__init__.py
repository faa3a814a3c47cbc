"""Words and sentence parts of each language, written for this project.

Parts are chosen so that any combination is grammatical: subjects carry their article and stand in
the nominative, predicates do not agree in gender, objects stand in the accusative.

`en.yaml` holds a grammar of its own. The files of the other languages hold the parts that
`_SENTENCES` combines: beings (`being`, with article) and what they do, without object (`action`)
and to one (`handle`, `object` in the accusative); things in the nominative (`thing`) and what they
do (`state`); adverbials of place and of time that can end a sentence (`place`, `moment`); plural
nouns after a number, masculine where it matters (`counted`); cities that take the plain preposition
of `weather`; clock times with an hour from 3 to 11 (`time`); and sentences that together cover the
sounds of the language (`rich`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pipeline.data.word_files import read_words

LANGUAGES = ("en", "de", "fr", "es", "it", "pt")
"""Tags of the languages with a grammar."""
_SENTENCES = {
    "phrase": ("{greeting}", "{thing}", "{being} {place}", "{count} {counted}"),
    "sentence": (*["{statement}"] * 4, "{weather}", "{counting}", "{question}", "{rich}"),
    "statement": (
        "{thing} {state}.",
        "{being} {handle} {object}.",
        "{being} {action}.",
        "{being} {action} {place}.",
        "{being} {action} {moment}.",
    ),
}


@dataclass(frozen=True)
class Grammar:
    """A context-free grammar of texts.

    Attributes:
        numbers: Words for 0 to 99.
        rules: Alternatives by name; `{name}` in an alternative stands for one of that rule. There
            are rules `number`, `time`, `phrase` and `sentence`.
    """

    numbers: tuple[str, ...]
    rules: Mapping[str, tuple[str, ...]]

    @property
    def digits(self) -> tuple[str, ...]:
        """Words for 0 to 9."""
        return self.numbers[:10]


@cache
def grammar_of(language: str) -> Grammar:
    """The grammar of one of `LANGUAGES`."""
    words = read_words(Path(__file__).parent / f"{language}.yaml")
    numbers = words["numbers"]
    ours = _english(numbers) if language == "en" else _SENTENCES | _counting(numbers)
    return Grammar(numbers, ours | words["rules"])


def _counting(numbers: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    # Words ending in one change before a plural: `veintiún barcos`.
    counts = (word for value, word in enumerate(numbers) if value >= 2 and value % 10 != 1)
    return {"number": numbers, "count": tuple(counts), "hour": numbers[3:12]}


def _english(numbers: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    return {
        "below_hundred": numbers,
        "above_zero": numbers[1:],
        "above_nine": numbers[10:],
        "digit_one": numbers[1:10],
        "count": numbers[2:21],
        "hour": numbers[1:13],
        "minute": (*numbers[10:60], *(f"oh {word}" for word in numbers[1:10])),
    }
