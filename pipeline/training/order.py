"""Which clip stands at which position of the endless training stream.

The stream is a function of the seed and the position alone: no cursor, no shuffle buffer. A step
takes the next positions whatever the number of workers, so resuming needs only the step.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SettingsError

_PERIOD = 1024
"""Positions after which the pattern of modalities repeats. Shares are exact to 1 / period; a share
of about half of that is never drawn."""
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
        seed: Seed of the permutation.

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
    """The clip at one position of the stream.

    Attributes:
        position: Position in the stream.
        row: Row in the index of the shards.
        epoch: Number of epochs of its modality that came before.
    """

    position: int
    row: int
    epoch: int


@dataclass(frozen=True)
class Group:
    """Clips of one modality that are drawn equally often.

    Attributes:
        name: Name among the groups of its modality.
        rows: Their index rows, in a fixed order.
        weight: How often each is drawn, relative to the other groups of the modality.
    """

    name: str
    rows: NDArray[np.int64]
    weight: float = 1.0


class StreamOrder:
    """The endless stream over the clips of several modalities.

    Args:
        groups: Clips of every modality; all of them, in a fixed order.
        weights: Share of every modality; None takes the square root of the number of clips.
            Modalities without rows are left out.
        seed: Chooses the permutation of every epoch.

    Raises:
        ValueError: If no modality has both rows and a share.
        SettingsError: If a weight above 0 is too small for its modality to be drawn.
    """

    def __init__(
        self,
        groups: Mapping[str, Sequence[Group]],
        weights: Mapping[str, float] | None,
        seed: int,
    ) -> None:
        strands = {name: _Strand(name, groups[name], seed) for name in sorted(groups)}
        strands = {name: strand for name, strand in strands.items() if strand.size}
        shares = {
            name: math.sqrt(strand.size) if weights is None else weights.get(name, 0.0)
            for name, strand in strands.items()
        }
        shares = {name: share for name, share in shares.items() if share > 0}
        if not shares:
            raise ValueError(
                f"no clips to train on: the shards hold {sorted(strands) or 'nothing'} and "
                f"modality_weights are {dict(weights or {})}"
            )
        self.shares = {name: share / sum(shares.values()) for name, share in shares.items()}
        self._strands = [strands[name] for name in self.shares]
        self._pattern, self._before = _pattern(list(self.shares.values()))
        if weights is not None and self.unheard:
            raise SettingsError(
                f"modality_weights {dict(weights)} give shares of {self.unheard}, too small to be "
                f"drawn; give at least 1/{_PERIOD} of the sum, or 0 to leave a modality out"
            )

    @property
    def unheard(self) -> dict[str, float]:
        """Shares of modalities that are too small to be drawn at all."""
        never = self._before[-1] == 0
        return {
            name: share for (name, share), n in zip(self.shares.items(), never, strict=True) if n
        }

    def at(self, position: int) -> StreamPosition:
        """The clip at a position."""
        period, offset = divmod(position, _PERIOD)
        number = int(self._pattern[offset])
        count = period * int(self._before[-1, number]) + int(self._before[offset, number])
        return StreamPosition(position, *self._strands[number].at(count))

    def step(self, step: int, size: int) -> list[StreamPosition]:
        """The `size` clips of a step."""
        return [self.at(position) for position in range(step * size, (step + 1) * size)]


class _Strand:
    """The endless sequence of clips of one modality.

    An epoch holds about as many clips as there are. Of each group it holds its weighted part, so
    that after any number of epochs the group has come as often as it should, within one clip; and
    the group's own clips come in turn, each as often as the others within one.
    """

    def __init__(self, name: str, groups: Sequence[Group], seed: int) -> None:
        self._groups = [group for group in groups if len(group.rows) and group.weight > 0]
        self.size = sum(len(group.rows) for group in self._groups)
        """Number of clips that are drawn at all."""
        self._name, self._seed = name, seed
        mass = [len(group.rows) * Fraction(str(group.weight)) for group in self._groups]
        whole = sum(mass, start=Fraction(0))
        self._quotas = [self.size * part / whole for part in mass]

    def at(self, count: int) -> tuple[int, int]:
        """Row and epoch of the clip that comes after `count` others."""
        epoch = count // self.size
        while (
            sum(self._before(epoch + 1)) <= count
        ):  # rounding down may leave it a little too small
            epoch += 1
        before, after = self._before(epoch), self._before(epoch + 1)
        index, size = count - sum(before), sum(after) - sum(before)
        place = permuted(index, size, mixed_seed(self._seed, "epoch", self._name, epoch))
        if len(self._groups) == 1:
            return int(self._groups[0].rows[place]), epoch
        for group, first, last in zip(self._groups, before, after, strict=True):
            if place < last - first:
                return self._in_turn(group, first + place), epoch
            place -= last - first
        raise AssertionError("the parts of an epoch add up to its size")

    def _before(self, epoch: int) -> list[int]:
        """Clips of every group that come before an epoch."""
        return [epoch * quota.numerator // quota.denominator for quota in self._quotas]

    def _in_turn(self, group: Group, count: int) -> int:
        lap, index = divmod(count, len(group.rows))
        seed = mixed_seed(self._seed, "lap", self._name, group.name, lap)
        return int(group.rows[permuted(index, len(group.rows), seed)])


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
