"""Words and sentence parts of each language, written for this project.

Parts are chosen so that any combination is grammatical: subjects carry their article and stand in
the nominative, predicates do not agree in gender, objects stand in the accusative.
"""

from __future__ import annotations

from pipeline.data.starter.lexicon.english import ENGLISH
from pipeline.data.starter.lexicon.french import FRENCH
from pipeline.data.starter.lexicon.german import GERMAN
from pipeline.data.starter.lexicon.italian import ITALIAN
from pipeline.data.starter.lexicon.portuguese import PORTUGUESE
from pipeline.data.starter.lexicon.schema import Grammar
from pipeline.data.starter.lexicon.spanish import SPANISH

GRAMMARS: dict[str, Grammar] = {
    grammar.language: grammar for grammar in (ENGLISH, GERMAN, FRENCH, SPANISH, ITALIAN, PORTUGUESE)
}
"""Grammar by language tag."""

__all__ = ["GRAMMARS", "Grammar"]
