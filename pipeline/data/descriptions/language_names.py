"""English names of languages by BCP 47 tag."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.data.word_files import read_words


def language_names() -> Mapping[str, str]:
    """English name by primary subtag."""
    return _names("languages")


def regional_names() -> Mapping[str, str]:
    """English name by the tags whose region has a name of its own."""
    return _names("regional")


def language_name(tag: str | None) -> str | None:
    """English name of a language by its BCP 47 tag; None if it is not known."""
    if not tag:
        return None
    lower = tag.lower().replace("_", "-")
    return regional_names().get(lower) or language_names().get(lower.split("-")[0])


def _names(kind: str) -> Mapping[str, str]:
    names: Mapping[str, str] = read_words(Path(__file__).with_suffix(".yaml"))[kind]
    return names
