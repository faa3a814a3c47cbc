"""What a language must offer so that sentences can be composed in it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Lexicon:
    """Sentence parts of one language; `{...}` in templates is filled by the composer.

    Attributes:
        language: BCP 47 tag.
        numbers: Words for 0 to 99.
        beings: Who can act, with article.
        actions: What beings do, without object.
        handles: What beings do to an object.
        objects: Things in the accusative, with article.
        things: Things in the nominative, with article.
        states: What things do.
        places: Where, as an adverbial.
        moments: When, as an adverbial that can end a sentence.
        counted: Plural nouns after a number (masculine where it matters).
        count_templates: Sentences with `{number}` and `{counted}`.
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

    @property
    def digits(self) -> tuple[str, ...]:
        """Words for 0 to 9."""
        return self.numbers[:10]
