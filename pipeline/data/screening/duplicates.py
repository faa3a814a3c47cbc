"""Which clips are the same recording: equal samples, or fingerprints that nearly agree.

All fingerprints are compared without looking at all pairs: clips are compared if some pair of words
agrees in 24 chosen bits at the same time after their start, and if they last as long. Fingerprints
lie on scratch disk; for each place of a pair of words the clips are partitioned by those bits, and
one partition at a time is sorted in memory.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.scratch import ScratchMap, scratch_database
from pipeline.data.screening.fingerprints import MAX_WORDS, Words, error_rate

DURATION_TOLERANCE_S = 0.15
"""Largest difference of the durations of one recording, seconds: lossy coders pad."""
_MASKS = np.uint32(0xC6D14881), np.uint32(0xD20698A8)
"""Twelve bits each of the two words of a key."""
_APART = 5  # words of a key, so that they share no samples of a stride of one
_NEIGHBOURS = 16
MAX_PARTITIONS = 256
"""Each is an open file, of which many systems allow a process 1,024."""
_KEYS = np.dtype([("key", "<u8"), ("duration_s", "<f8"), ("number", "<i8")])


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

    Memory holds a partition of the clips and those that have a duplicate; the scratch disk holds
    a kilobyte a clip.

    Args:
        max_error_rate: Share of differing bits up to which two clips are one recording; 0 asks
            for equal samples.
        partition_clips: Clips that are sorted in memory at a time; more, if there would be more
            than `MAX_PARTITIONS` partitions.
    """

    def __init__(self, max_error_rate: float, partition_clips: int = 2**16) -> None:
        self._limit = max_error_rate
        self._prints = _Fingerprints(min(partition_clips, 2**13))
        self._partition_clips = partition_clips
        self._first = ScratchMap(scratch_database())
        self._parents: dict[int, int] = {}

    def add(self, fingerprint: str, duration_s: float, words: Words) -> int:
        """Take a clip; returns its number, counted from 0."""
        number = len(self._prints)
        first = int(self._first.setdefault(fingerprint, str(number)))
        is_compared = first == number and self._limit > 0
        self._prints.add(duration_s, words if is_compared else words[:0])
        self._join(first, number)
        return number

    def groups(self) -> Iterator[list[int]]:
        """Numbers of the clips of every recording that several clips are of."""
        if self._limit > 0:
            for one, other in self._candidates():
                if self._root(one) != self._root(other) and self._agree(one, other):
                    self._join(one, other)
        found: dict[int, list[int]] = {}
        for number in sorted({*self._parents, *self._parents.values()}):
            found.setdefault(self._root(number), []).append(number)
        yield from found.values()

    def _agree(self, one: int, other: int) -> bool:
        return error_rate(self._prints.words(one), self._prints.words(other)) <= self._limit

    def _candidates(self) -> Iterator[tuple[int, int]]:
        """Pairs of clips that share a key and last as long; a pair may come several times."""
        num_partitions = min(-(-len(self._prints) // self._partition_clips), MAX_PARTITIONS)
        for column in range(MAX_WORDS - _APART):
            for keys in _partitioned(self._prints.keys(column), num_partitions):
                yield from _pairs(keys)

    def _root(self, number: int) -> int:
        while (parent := self._parents.get(number, number)) != number:
            self._parents[number] = number = self._parents.get(parent, parent)
        return number

    def _join(self, one: int, other: int) -> None:
        low, high = sorted((self._root(one), self._root(other)))
        if low != high:
            self._parents[high] = low


class _Fingerprints:
    """Fingerprints by number of the clip on scratch disk, by clip and by time.

    Args:
        block_clips: Clips that are written at a time.
    """

    def __init__(self, block_clips: int) -> None:
        self._block_clips = block_clips
        self._by_clip: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed below
        self._by_time: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        for file in (self._by_clip, self._by_time):
            weakref.finalize(self, file.close)
        self._durations_s: list[float] = []
        self._words: list[Words] = []
        self._num_written = 0

    def __len__(self) -> int:
        return self._num_written + len(self._words)

    def add(self, duration_s: float, words: Words) -> None:
        """Append a clip."""
        self._durations_s.append(duration_s)
        self._words.append(words)
        if len(self._words) == self._block_clips:
            self._flush()

    def words(self, number: int) -> Words:
        """Words of a clip, padded with zeros."""
        self._flush()
        size = MAX_WORDS * 4
        self._by_clip.seek(number * size)
        return np.frombuffer(self._by_clip.read(size), "<u4").astype(np.uint32)

    def keys(self, column: int) -> Iterator[NDArray[np.void]]:
        """Key, duration and number of the clips that have a key at one time, block by block."""
        self._flush()
        offset = 0
        for first in range(0, self._num_written, self._block_clips):
            count = min(self._block_clips, self._num_written - first)
            durations_s = self._read(offset, "<f8", count)
            words = offset + 8 * count
            one, other = (
                self._read(words + 4 * count * at, "<u4", count) for at in (column, column + _APART)
            )
            rows = np.flatnonzero((one != 0) & (other != 0))
            keys = np.empty(len(rows), _KEYS)
            keys["key"] = (one[rows] & _MASKS[0]).astype(np.uint64) << np.uint64(32)
            keys["key"] |= (other[rows] & _MASKS[1]).astype(np.uint64)
            keys["duration_s"] = durations_s[rows]
            keys["number"] = rows + first
            yield keys
            offset = words + 4 * count * MAX_WORDS

    def _read(self, offset: int, kind: str, count: int) -> NDArray[Any]:
        self._by_time.seek(offset)
        return np.frombuffer(self._by_time.read(count * np.dtype(kind).itemsize), kind)

    def _flush(self) -> None:
        if not self._words:
            return
        table = np.zeros((len(self._words), MAX_WORDS), "<u4")
        for row, words in zip(table, self._words, strict=True):
            row[: len(words)] = words
        self._by_clip.seek(0, 2)
        self._by_clip.write(table.tobytes())
        self._by_time.seek(0, 2)
        self._by_time.write(np.array(self._durations_s, "<f8").tobytes())
        self._by_time.write(np.ascontiguousarray(table.T).tobytes())
        self._num_written += len(self._words)
        self._words.clear()
        self._durations_s.clear()


def _partitioned(
    blocks: Iterator[NDArray[np.void]], num_partitions: int
) -> Iterator[NDArray[np.void]]:
    """Partition the keys, with equal keys in the same part."""
    if num_partitions <= 1:
        yield from blocks
        return
    with ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(num_partitions)]
        for block in blocks:
            mixed = block["key"] ^ (block["key"] >> np.uint64(32))
            hashes = mixed * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(33)
            parts = (hashes % np.uint64(num_partitions)).astype(np.uint16)
            order = np.argsort(parts, kind="stable")
            ends = np.cumsum(np.bincount(parts, minlength=num_partitions))
            for file, rows in zip(files, np.split(block[order], ends[:-1]), strict=True):
                file.write(rows.tobytes())
        for file in files:
            file.seek(0)
            yield np.frombuffer(file.read(), _KEYS)


def _pairs(keys: NDArray[np.void]) -> Iterator[tuple[int, int]]:
    """Pairs of like duration out of runs of equal keys, near neighbours only."""
    keys = keys[np.lexsort((keys["duration_s"], keys["key"]))]
    for ahead in range(1, min(_NEIGHBOURS, len(keys) - 1) + 1):
        one, other = keys[:-ahead], keys[ahead:]
        is_pair = (one["key"] == other["key"]) & (
            other["duration_s"] - one["duration_s"] <= DURATION_TOLERANCE_S
        )
        if not is_pair.any():
            return
        yield from zip(
            one["number"][is_pair].tolist(), other["number"][is_pair].tolist(), strict=True
        )
