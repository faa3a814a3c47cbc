"""Major or minor key of music, by its chroma."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from pipeline.audio.files import resample

RATE = 8000
"""Rate at which the data pipeline estimates keys, Hz."""
_WINDOW_S = 0.512
_HOP_S = 0.256
_CHUNK_FRAMES = 512
_RANGE_HZ = (80.0, 1000.0)  # below, a window does not tell semitones apart; above are overtones
_CONCERT_A_HZ = 440.0
_LOUD = 0.05  # of the largest peak of a frame; softer ones are company of it
_OVERTONES = np.arange(1, 7)  # a peak may be any of these of a lower tone,
_OVERTONE_WEIGHT = 0.8  # with this to the power of how far up
_MIN_FIT = 0.6  # noise fits its best key with 0.4
_MIN_FRAMES = 4
_FLOOR = 1e-6

_MAJOR = np.array([6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88])
_MINOR = np.array([6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17])

KEY_NAMES = (
    "C major", "D-flat major", "D major", "E-flat major", "E major", "F major",
    "F-sharp major", "G major", "A-flat major", "A major", "B-flat major", "B major",
    "C minor", "C-sharp minor", "D minor", "E-flat minor", "E minor", "F minor",
    "F-sharp minor", "G minor", "G-sharp minor", "A minor", "B-flat minor", "B minor",
)  # fmt: skip
"""Keys by number: the twelve major ones from C upwards, then the minor ones."""


@dataclass(frozen=True)
class Key:
    """An estimated key.

    Attributes:
        number: Place in `KEY_NAMES`.
        confidence: Correlation of the chroma with the key's profile, less that with the next best
            key's: 0 is a guess, 0.12 is clear.
    """

    number: int
    confidence: float


def measure_key(waveform: NDArray[np.float32], sample_rate: int) -> Key | None:
    """Key of `channels samples` at any rate, as the data pipeline measures it."""
    mono = waveform.mean(axis=0, keepdims=True)
    return estimate_key(resample(mono, sample_rate, RATE)[0], RATE)


def estimate_key(mono: NDArray[np.float32], sample_rate: int) -> Key | None:
    """The key that fits the long-term chroma best; None if none fits, or there is too little sound.

    Args:
        mono: Samples.
        sample_rate: Rate of the samples, Hz; at least 4000.

    Source:
        Krumhansl and Kessler 1982 (probe tone profiles), Krumhansl 1990 (correlation), Gomez 2006
        (overtones count for the tones below them).
    """
    chroma = _chroma(mono, sample_rate)
    if chroma is None or chroma.std() < _FLOOR:
        return None
    fits = np.corrcoef(np.concatenate([chroma[None], _profiles()]))[0, 1:]
    order = np.argsort(fits)
    best, next_best = fits[order[-1]], fits[order[-2]]
    return Key(int(order[-1]), float(best - next_best)) if best >= _MIN_FIT else None


def _profiles() -> NDArray[np.float64]:
    return np.stack([np.roll(mode, tonic) for mode in (_MAJOR, _MINOR) for tonic in range(12)])


def _chroma(mono: NDArray[np.float32], sample_rate: int) -> NDArray[np.float64] | None:
    """Mean strength of the twelve pitch classes from C, of frames that hold a peak."""
    size, hop = round(_WINDOW_S * sample_rate), round(_HOP_S * sample_rate)
    if len(mono) < size + (_MIN_FRAMES - 1) * hop:
        return None
    frames = np.lib.stride_tricks.sliding_window_view(mono, size)[::hop]
    found = [
        _peaks(frames[start : start + _CHUNK_FRAMES], sample_rate, size)
        for start in range(0, len(frames), _CHUNK_FRAMES)
    ]
    offsets = np.cumsum([0] + [_CHUNK_FRAMES] * (len(found) - 1))
    rows = np.concatenate([row + at for (row, _, _), at in zip(found, offsets, strict=True)])
    pitches = np.concatenate([pitch for _, pitch, _ in found])
    weights = np.concatenate([weight for _, _, weight in found])
    if not len(rows):
        return None
    # Instruments that agree with each other need not agree with 440 Hz.
    turn = np.angle(np.sum(weights * np.exp(2j * np.pi * pitches))) / (2 * np.pi)
    table = np.zeros(12 * len(frames))
    for overtone in _OVERTONES:
        classes = np.round(pitches - turn - 12 * np.log2(overtone)).astype(np.int64) % 12
        share = _OVERTONE_WEIGHT ** (overtone - 1)
        table += share * np.bincount(rows * 12 + classes, weights, len(table))
    by_frame = table.reshape(-1, 12)
    loudest = by_frame.max(axis=1)
    held = loudest > 0
    if held.sum() < _MIN_FRAMES:
        return None
    chroma: NDArray[np.float64] = (by_frame[held] / np.sqrt(loudest[held, None])).mean(axis=0)
    return chroma


def _peaks(
    frames: NDArray[np.float32], sample_rate: int, size: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Frame, pitch in semitones above C, and weight of every spectral peak."""
    window = np.hanning(size).astype(np.float32)
    magnitude = np.abs(scipy.fft.rfft(frames * window, axis=1))
    low, high = (round(limit * size / sample_rate) for limit in _RANGE_HZ)
    inner, left, right = (magnitude[:, low + step : high + step] for step in (0, -1, 1))
    limit = np.maximum(_LOUD * inner.max(axis=1, keepdims=True), _FLOOR * size)
    rows, columns = np.nonzero((inner > left) & (inner >= right) & (inner > limit))
    before, here, after = (np.log(part[rows, columns] + 1e-12) for part in (left, inner, right))
    curve = before - 2 * here + after
    shift = np.where(curve < -1e-9, 0.5 * (before - after) / np.minimum(curve, -1e-9), 0.0)
    frequency = (low + columns + np.clip(shift, -0.5, 0.5)) * sample_rate / size
    pitch = 9 + 12 * np.log2(frequency / _CONCERT_A_HZ)
    return rows, pitch.astype(np.float64), np.sqrt(inner[rows, columns]).astype(np.float64)
