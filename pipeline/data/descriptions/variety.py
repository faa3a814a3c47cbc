"""How varied a set of texts is: distinct texts, distinct forms, distinct words."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.storage import Folder

MAX_TEXTS = 100_000
"""Texts of a directory that are measured; of more, the clips with the smallest hashes."""
WINDOW = 1000
"""Words of the windows whose type/token ratio is averaged: the plain ratio falls with length."""

_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
_TOKEN = re.compile(r"[^\W_]+(?:['-][^\W_]+)*|[^\w\s]")
_SMALL = (
    "a an the and or but of in on at to for with by from as is are was be been it its this that "
    "these those there here we you i me one he she they who which what while then no not some "
    "over under into like can could"
)
_SMALL_WORDS = frozenset(_SMALL.split())


@dataclass(frozen=True)
class Variety:
    """Variety of texts.

    Attributes:
        texts: Texts measured.
        distinct_texts: Texts that differ in more than case.
        duplicate_share: Share of texts that another one before them equals.
        distinct_forms: Different sequences of small words and punctuation, whatever stands between.
        words: Words measured.
        words_per_text: Mean number of words of a text.
        word_types: Different words, whatever the case.
        type_token_ratio: `word_types / words`.
        type_token_ratio_1000: Mean of the ratio over windows of `WINDOW` words, which texts of any
            number can be compared by; None of fewer words.
    """

    texts: int
    distinct_texts: int
    duplicate_share: float
    distinct_forms: int
    words: int
    words_per_text: float
    word_types: int
    type_token_ratio: float
    type_token_ratio_1000: float | None


class VarietyMeter:
    """Measures texts one after the other; keeps digests and words, not texts."""

    def __init__(self) -> None:
        self._num_texts = self._num_words = 0
        self._texts: set[int] = set()
        self._forms: set[int] = set()
        self._types: set[str] = set()
        self._window: list[str] = []
        self._ratios: list[float] = []

    def add(self, text: str) -> None:
        """Count a text in."""
        folded = text.casefold()
        words = _WORD.findall(folded)
        self._num_texts += 1
        self._num_words += len(words)
        self._texts.add(_digest(folded))
        self._forms.add(_digest(form_of(folded)))
        self._types.update(words)
        self._window += words
        while len(self._window) >= WINDOW:
            self._ratios.append(len(set(self._window[:WINDOW])) / WINDOW)
            del self._window[:WINDOW]

    def result(self) -> Variety:
        """The variety of all texts so far."""
        count, words = max(1, self._num_texts), max(1, self._num_words)
        ratios = self._ratios
        return Variety(
            texts=self._num_texts,
            distinct_texts=len(self._texts),
            duplicate_share=round((self._num_texts - len(self._texts)) / count, 4),
            distinct_forms=len(self._forms),
            words=self._num_words,
            words_per_text=round(self._num_words / count, 2),
            word_types=len(self._types),
            type_token_ratio=round(len(self._types) / words, 4),
            type_token_ratio_1000=round(sum(ratios) / len(ratios), 4) if ratios else None,
        )


def form_of(text: str) -> str:
    """A text with every run of words that carry meaning replaced by `_`."""
    kept: list[str] = []
    for token in _TOKEN.findall(text.casefold()):
        shown = token if token in _SMALL_WORDS or not _WORD.match(token) else "_"
        if shown != "_" or kept[-1:] != ["_"]:
            kept.append(shown)
    return " ".join(kept)


def measure_folder(descriptions: Folder, names: Sequence[str], num_clips: int) -> dict[str, Any]:
    """Variety of the texts of a `descriptions/` directory, of all and by modality.

    Args:
        descriptions: Directory whose parts are written; its card may be missing.
        names: Names of its tables.
        num_clips: Clips in it.
    """
    meters: dict[str, VarietyMeter] = {"all": VarietyMeter()}
    for modality, texts in _sample(descriptions, names, num_clips):
        meter = meters.setdefault(modality, VarietyMeter())
        for text in texts:
            meters["all"].add(text)
            meter.add(text)
    return {name: asdict(meter.result()) for name, meter in sorted(meters.items())}


def _sample(
    descriptions: Folder, names: Sequence[str], num_clips: int
) -> Iterator[tuple[str, list[str]]]:
    num_seen = num_texts = 0
    columns = ["clip_id", "modality", "descriptions"]
    for name in names:
        for row in descriptions.read_table(name, columns).to_pylist():
            num_seen += 1
            num_texts += len(row["descriptions"])
            expected = num_texts / num_seen * num_clips
            if _digest(row["clip_id"]) / 2**64 < MAX_TEXTS / expected:
                yield row["modality"], row["descriptions"]


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
