"""The sentence parts that a language needs so that texts can be composed in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_FIRST_HOUR, _LAST_HOUR = 3, 11


@dataclass(frozen=True, kw_only=True)
class Grammar:
    """A context-free grammar of texts.

    Attributes:
        language: BCP 47 tag.
        numbers: Words for 0 to 99.
        rules: Alternatives by name; `{name}` in an alternative stands for one of that rule. There
            are rules `number`, `time`, `phrase` and `sentence`.
    """

    language: str
    numbers: tuple[str, ...]
    rules: Mapping[str, tuple[str, ...]]

    @property
    def digits(self) -> tuple[str, ...]:
        """Words for 0 to 9."""
        return self.numbers[:10]


@dataclass(frozen=True, kw_only=True)
class Lexicon:
    """Sentence parts of one language; `{...}` in templates is filled by the composer.

    Attributes:
        language: BCP 47 tag.
        numbers: Words for 0 to 99.
        beings: Nouns for beings that can act, with article.
        actions: What beings do, without object.
        handles: What beings do to an object.
        objects: Things in the accusative, with article.
        things: Things in the nominative, with article.
        states: What things do.
        places: Adverbials of place.
        moments: Adverbials of time that can end a sentence.
        counted: Plural nouns after a number (masculine where it matters).
        count_templates: Sentences with `{count}` and `{counted}`.
        cities: Names that take the plain preposition of `weather`.
        weather: Sentences, some with `{city}`.
        clock: Sentences with `{hour}`, an hour from 3 to 11.
        questions: Questions with `{thing}` or without.
        greetings: Things people say.
        rich: Sentences that together cover the sounds of the language.
    """

    language: str
    numbers: tuple[str, ...]
    beings: tuple[str, ...]
    actions: tuple[str, ...]
    handles: tuple[str, ...]
    objects: tuple[str, ...]
    things: tuple[str, ...]
    states: tuple[str, ...]
    places: tuple[str, ...]
    moments: tuple[str, ...]
    counted: tuple[str, ...]
    count_templates: tuple[str, ...]
    cities: tuple[str, ...]
    weather: tuple[str, ...]
    clock: tuple[str, ...]
    questions: tuple[str, ...]
    greetings: tuple[str, ...]
    rich: tuple[str, ...]

    def grammar(self) -> Grammar:
        """The grammar that composes these parts."""
        return Grammar(
            language=self.language,
            numbers=self.numbers,
            rules={
                "number": self.numbers,
                "time": self.clock,
                "phrase": ("{greeting}", "{thing}", "{being} {place}", "{count} {counted}"),
                "sentence": (
                    *["{statement}"] * 4,
                    "{weather}",
                    "{counting}",
                    "{question}",
                    "{rich}",
                ),
                "statement": (
                    "{thing} {state}.",
                    "{being} {handle} {object}.",
                    "{being} {action}.",
                    "{being} {action} {place}.",
                    "{being} {action} {moment}.",
                ),
                "being": self.beings,
                "action": self.actions,
                "handle": self.handles,
                "object": self.objects,
                "thing": self.things,
                "state": self.states,
                "place": self.places,
                "moment": self.moments,
                "counted": self.counted,
                "counting": self.count_templates,
                "count": tuple(w for value, w in enumerate(self.numbers) if _counts(value)),
                "city": self.cities,
                "weather": self.weather,
                "hour": self.numbers[_FIRST_HOUR : _LAST_HOUR + 1],
                "question": self.questions,
                "greeting": self.greetings,
                "rich": self.rich,
            },
        )


def _counts(value: int) -> bool:
    """Whether the number word stands before a plural unchanged (`veintiún barcos` does not)."""
    return value >= 2 and value % 10 != 1
