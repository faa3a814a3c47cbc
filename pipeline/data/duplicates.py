"""Which clips are the same recording: equal samples, or fingerprints that nearly agree.

All fingerprints are compared without looking at all pairs: clips are compared if some pair of words
agrees in 24 chosen bits at the same time after their begin, and if they last as long.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.data.fingerprints import MAX_WORDS, Words, error_rate

DURATION_TOLERANCE_S = 0.15
"""How far the durations of one recording may differ, seconds: lossy coders pad."""
_MASKS = np.uint32(0xC6D14881), np.uint32(0xD20698A8)
"""Twelve bits each of the two words of a key."""
_APART = 5  # words of a key, so that they share no samples of a stride of one
_NEIGHBOURS = 16


@dataclass(frozen=True, order=True)
class Rank:
    """Order in which the clips of one recording are preferred, the first first.

    Attributes:
        is_bare: Whether it has no transcript.
        num_lacking: Minus its captions and tags.
        lacking_rate: Minus the sample rate, Hz.
        lacking_channels: Minus the number of channels.
        clip_id: Decides where all else is equal.
    """

    is_bare: bool
    num_lacking: int
    lacking_rate: int
    lacking_channels: int
    clip_id: str


class Recordings:
    """Collects clips and says which of them are one recording.

    Holds half a kilobyte of fingerprint a clip.

    Args:
        max_error_rate: Share of differing bits up to which two clips are one recording; 0 asks
            for equal samples.
    """

    def __init__(self, max_error_rate: float) -> None:
        self._limit = max_error_rate
        self._durations_s: list[float] = []
        self._words: list[Words] = []
        self._first: dict[str, int] = {}
        self._parents: list[int] = []

    def add(self, fingerprint: str, duration_s: float, words: Words) -> int:
        """Take a clip; returns its number."""
        number = len(self._parents)
        self._parents.append(number)
        self._durations_s.append(duration_s)
        first = self._first.setdefault(fingerprint, number)
        self._words.append(words if first == number else words[:0])
        self._join(first, number)
        return number

    def groups(self) -> Iterator[list[int]]:
        """Numbers of the clips of every recording that several clips are of."""
        if self._limit > 0:
            for one, other in self._candidates():
                if self._root(one) != self._root(other) and self._agree(one, other):
                    self._join(one, other)
        found: dict[int, list[int]] = {}
        for number in range(len(self._parents)):
            found.setdefault(self._root(number), []).append(number)
        yield from (group for group in found.values() if len(group) > 1)

    def _agree(self, one: int, other: int) -> bool:
        return error_rate(self._words[one], self._words[other]) <= self._limit

    def _candidates(self) -> Iterator[tuple[int, int]]:
        numbers = np.array([n for n, words in enumerate(self._words) if len(words)], np.int64)
        if len(numbers) < 2:
            return
        words = np.zeros((len(numbers), MAX_WORDS), np.uint32)
        for row, number in enumerate(numbers):
            words[row, : len(self._words[number])] = self._words[number]
        durations = np.array(self._durations_s)[numbers]
        pairs: set[tuple[int, int]] = set()
        for column in range(MAX_WORDS - _APART):
            one, other = words[:, column], words[:, column + _APART]
            rows = np.flatnonzero((one != 0) & (other != 0))
            keys = (one[rows] & _MASKS[0]).astype(np.uint64) << np.uint64(32)
            keys |= (other[rows] & _MASKS[1]).astype(np.uint64)
            order = np.lexsort((durations[rows], keys))
            _collect(keys[order], durations[rows][order], numbers[rows][order], pairs)
        yield from sorted(pairs)

    def _root(self, number: int) -> int:
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number

    def _join(self, one: int, other: int) -> None:
        roots = self._root(one), self._root(other)
        self._parents[max(roots)] = min(roots)


def _collect(
    keys: NDArray[np.uint64],
    durations_s: NDArray[np.float64],
    numbers: NDArray[np.int64],
    pairs: set[tuple[int, int]],
) -> None:
    """Add pairs of like duration out of runs of equal keys, near neighbours only."""
    for ahead in range(1, min(_NEIGHBOURS, len(keys) - 1) + 1):
        is_pair = (keys[:-ahead] == keys[ahead:]) & (
            durations_s[ahead:] - durations_s[:-ahead] <= DURATION_TOLERANCE_S
        )
        if not is_pair.any():
            return
        for one, other in zip(numbers[:-ahead][is_pair], numbers[ahead:][is_pair], strict=True):
            pairs.add((min(int(one), int(other)), max(int(one), int(other))))
