"""Acoustic fingerprints: clips that sound the same, whatever their container, rate and gain.

Every 64 ms one 32-bit word says between which neighbouring bands the energy moved. Words of the
same recording differ in few bits after lossy coding; those of other recordings in half of them.

Source:
    Haitsma and Kalker, A Highly Robust Audio Fingerprinting System, ISMIR 2002.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import scipy.fft
import soxr
from jaxtyping import Float
from numpy.typing import NDArray

Words = NDArray[np.uint32]

_RATE = 8_000
_HOP, _WINDOW = 512, 3_072
_NUM_BANDS = 33
_BANDS_HZ = (200.0, 3_000.0)
_QUIET_DB = 40.0  # frames this far below the loudest say nothing: coding noise fills them
MAX_WORDS = 128
"""Largest number of words of a fingerprint; of longer ones every second, fourth, ... is kept."""
MIN_WORDS = 28
"""Words with sound that two clips must share to be compared: under 2 s only samples tell."""
_MIN_OVERLAP = 0.8
_BALANCE = (0.2, 0.8)  # share of ones: a steady tone or a click has no fingerprint
_SHIFTS = (0, -1, 1)  # lossy coders may delay by a word


class Fingerprinter:
    """Adds up the fingerprint of a clip block by block.

    Args:
        sample_rate: Hz.
        phases: Words within the 64 ms between two words of an ordinary fingerprint, a power of two.
            More than one make a dense fingerprint, of which no word is left out: a recording is
            found in it that starts at any time.
    """

    def __init__(self, sample_rate: int, phases: int = 1) -> None:
        self._phases = phases
        self._hop = _HOP // phases
        self._resampler = (
            None
            if sample_rate == _RATE
            else soxr.ResampleStream(sample_rate, _RATE, 1, dtype="float32", quality="LQ")
        )
        self._held: NDArray[np.float32] = np.zeros(0, np.float32)
        self._energies: list[NDArray[np.float32]] = []

    def add(self, block: Float[np.ndarray, "channels samples"]) -> None:
        """The next samples."""
        self._take(block.mean(axis=0, dtype=np.float32), is_last=False)

    def result(self) -> Words:
        """Words of the clip, 0 where it is quiet; none of one that has no fingerprint."""
        self._take(np.zeros(0, np.float32), is_last=True)
        if sum(map(len, self._energies)) <= self._phases:
            return np.zeros(0, np.uint32)
        energies = np.concatenate(self._energies)
        level = energies.sum(axis=1)
        is_loud = level > level.max() * 10 ** (-_QUIET_DB / 10)
        slopes = energies[:, :-1] - energies[:, 1:]
        change = slopes[self._phases :] > slopes[: -self._phases]
        words = np.packbits(change, axis=1, bitorder="little").view("<u4")[:, 0].astype(np.uint32)
        words[~(is_loud[self._phases :] & is_loud[: -self._phases])] = 0
        ones = np.bitwise_count(words[words != 0]).mean() / 32 if words.any() else 0.0
        if not _BALANCE[0] < ones < _BALANCE[1]:
            return np.zeros(0, np.uint32)
        return words if self._phases > 1 else words[:: stride_of(len(words))]

    def _take(self, mono: NDArray[np.float32], *, is_last: bool) -> None:
        if self._resampler is not None:
            mono = self._resampler.resample_chunk(mono, last=is_last)
        self._held = np.concatenate([self._held, mono])
        count = (len(self._held) - _WINDOW) // self._hop + 1
        if count > 0:
            frames = np.lib.stride_tricks.sliding_window_view(self._held, _WINDOW)[:: self._hop]
            spectrum = scipy.fft.rfft(frames * _window(), axis=1)
            power = spectrum.real**2 + spectrum.imag**2
            bands = np.add.reduceat(power, _edges(), axis=1)[:, :_NUM_BANDS]
            self._energies.append(bands)
            self._held = self._held[count * self._hop :]


def stride_of(num_words: int) -> int:
    """Step between the words that are kept of so many: 1, 2, 4, ..."""
    return int(2 ** max(0, np.ceil(np.log2(max(1, num_words) / MAX_WORDS))))


def stride_for(duration_s: float, num_kept: int) -> int:
    """Step between the words of an ordinary fingerprint of a clip.

    Args:
        duration_s: Duration of the clip, seconds.
        num_kept: Number of its words.
    """
    num_words = (duration_s * _RATE - _WINDOW) / _HOP
    return int(2 ** max(0, round(float(np.log2(max(num_words, 1) / max(num_kept, 1))))))


@cache
def _window() -> NDArray[np.float32]:
    return np.hanning(_WINDOW).astype(np.float32)


@cache
def _edges() -> NDArray[np.int64]:
    low, high = _BANDS_HZ
    edges = low * (high / low) ** (np.arange(_NUM_BANDS + 1) / _NUM_BANDS)
    return np.round(edges * _WINDOW / _RATE).astype(np.int64)


def error_rate(one: Words, other: Words) -> float:
    """Share of bits in which two fingerprints of the same stride differ; 1 if not comparable."""
    best = 1.0
    num_loud = max(np.count_nonzero(one), np.count_nonzero(other))
    for shift in _SHIFTS:
        a, b = one[max(0, shift) :], other[max(0, -shift) :]
        length = min(len(a), len(b))
        a, b = a[:length], b[:length]
        is_loud = (a != 0) & (b != 0)
        count = int(is_loud.sum())
        if count < max(MIN_WORDS, _MIN_OVERLAP * num_loud):
            continue
        differing = int(np.bitwise_count(a[is_loud] ^ b[is_loud]).sum())
        best = min(best, differing / (32 * count))
    return best


def to_bytes(words: Words) -> bytes:
    """Words as little-endian bytes, for a column of a table."""
    return words.astype("<u4").tobytes()


def from_bytes(payload: bytes | None) -> Words:
    """Inverse of `to_bytes`; None is no fingerprint."""
    return np.frombuffer(payload or b"", "<u4").astype(np.uint32)
