"""Which clip stands at which position of the endless training stream.

The stream is a function of the seed and the position alone: no cursor, no shuffle buffer. A step
takes the next positions whatever the number of workers, so resuming needs only the step.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_PERIOD = 1024
"""Positions after which the pattern of modalities repeats; shares are exact to 1 / period."""
_ROUNDS = 6
"""Feistel rounds of a permutation; four already hide the input (Luby and Rackoff, 1988)."""


def mixed_seed(*parts: int | str) -> int:
    """A 63-bit seed from labelled parts; equal parts give equal seeds on every machine."""
    text = "\x1f".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def permuted(index: int, size: int, seed: int) -> int:
    """Place of `index` in a pseudo-random permutation of `range(size)`, without building it.

    Args:
        index: Within [0, size).
        size: Length of the permutation.
        seed: Chooses it.

    Source:
        Feistel network over the next even number of bits, walked until it falls inside the range
        (Black and Rogaway, 2002, "cycle walking").
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    value = index
    while True:
        left, right = value >> half, value & mask
        for number in range(_ROUNDS):
            left, right = right, left ^ (_hash(right, number, seed) & mask)
        value = (left << half) | right
        if value < size:
            return value


def _hash(value: int, number: int, seed: int) -> int:
    """Finaliser of splitmix64 over a round's input."""
    bits = (value + (number + 1) * 0x9E3779B97F4A7C15 + seed) & 0xFFFFFFFFFFFFFFFF
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return bits ^ (bits >> 31)


@dataclass(frozen=True)
class StreamPosition:
    """What stands at one position.

    Attributes:
        position: In the stream.
        row: In the index of the shards.
        epoch: How often all clips of its modality were seen before.
    """

    position: int
    row: int
    epoch: int


class StreamOrder:
    """The endless stream over the clips of several modalities.

    Args:
        rows: Index rows of every modality; all of them, in a fixed order.
        weights: Share of every modality; None takes the square root of the number of clips.
            Modalities without rows are left out.
        seed: Chooses the permutation of every epoch.

    Raises:
        ValueError: If no modality has both rows and a share.
    """

    def __init__(
        self,
        rows: Mapping[str, NDArray[np.int64]],
        weights: Mapping[str, float] | None,
        seed: int,
    ) -> None:
        self._rows = {name: rows[name] for name in sorted(rows) if len(rows[name])}
        shares = {
            name: math.sqrt(len(found)) if weights is None else weights.get(name, 0.0)
            for name, found in self._rows.items()
        }
        shares = {name: share for name, share in shares.items() if share > 0}
        if not shares:
            raise ValueError(
                f"no clips to train on: the shards hold {sorted(self._rows) or 'nothing'} and "
                f"modality_weights are {dict(weights or {})}"
            )
        self.shares = {name: share / sum(shares.values()) for name, share in shares.items()}
        self._names = list(self.shares)
        self._pattern, self._before = _pattern(list(self.shares.values()))
        self._seed = seed

    def at(self, position: int) -> StreamPosition:
        """The clip at a position."""
        period, offset = divmod(position, _PERIOD)
        number = int(self._pattern[offset])
        name = self._names[number]
        rows = self._rows[name]
        count = period * int(self._before[-1, number]) + int(self._before[offset, number])
        epoch, index = divmod(count, len(rows))
        place = permuted(index, len(rows), mixed_seed(self._seed, "epoch", name, epoch))
        return StreamPosition(position, int(rows[place]), epoch)

    def step(self, step: int, size: int) -> list[StreamPosition]:
        """The `size` clips of a step."""
        return [self.at(position) for position in range(step * size, (step + 1) * size)]


def _pattern(shares: list[float]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Modality of every position of a period, and how often each came before.

    Every position goes to the modality that is furthest behind its share, so any stretch of the
    stream holds each modality within one of its share.
    """
    wanted = np.asarray(shares)
    counts = np.zeros(len(shares), dtype=np.int64)
    before = np.zeros((_PERIOD + 1, len(shares)), dtype=np.int64)
    pattern = np.zeros(_PERIOD, dtype=np.int64)
    for offset in range(_PERIOD):
        number = int(np.argmax((offset + 1) * wanted - counts))
        pattern[offset] = number
        counts[number] += 1
        before[offset + 1] = counts
    return pattern, before
