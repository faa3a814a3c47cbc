"""The part of the AudioSet ontology that FSD50K uses: which of its classes lie below which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from pipeline.data.word_files import read_words


@cache
def _all_below() -> Mapping[str, frozenset[str]]:
    """Every class below each class, at any depth."""
    straight_below = read_words(Path(__file__).with_suffix(".yaml"))
    found: dict[str, frozenset[str]] = {}
    for name, classes in straight_below.items():
        below, new = set[str](), set(classes)
        while new:
            below |= new
            new = {one for parent in new for one in straight_below.get(parent, ())} - below
        found[name] = frozenset(below - {name})
    return found


def leaves(labels: Sequence[str]) -> tuple[str, ...]:
    """Labels without those that another one of them lies below: the most specific ones."""
    there, below = frozenset(labels), _all_below()
    return tuple(label for label in labels if not there & below.get(label, frozenset()))
