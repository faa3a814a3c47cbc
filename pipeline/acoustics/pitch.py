"""Fundamental frequency over time, by the cumulative mean normalised difference."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_HOP_S = 0.02
_WINDOW_S = 0.032
_THRESHOLD = 0.15
_CHUNK_FRAMES = 2048


@dataclass(frozen=True)
class PitchRange:
    """Range of frequencies in which pitch is searched, Hz."""

    low_hz: float
    high_hz: float


def pitch_track(
    mono: NDArray[np.float32], sample_rate: int, bounds: PitchRange
) -> NDArray[np.float64]:
    """Pitch in Hz every 20 ms; 0 where nothing is periodic.

    Args:
        mono: Samples.
        sample_rate: Rate of the samples, Hz; a few kHz are enough.
        bounds: Range of frequencies to search.

    Source:
        YIN, de Cheveigne and Kawahara 2002, steps 1 to 5; threshold 0.15.
    """
    shortest = max(2, int(sample_rate / bounds.high_hz))
    longest = math.ceil(sample_rate / bounds.low_hz) + 1
    window = round(sample_rate * _WINDOW_S)
    length = window + longest + 1
    if len(mono) < length:
        return np.zeros(0)
    hop = round(sample_rate * _HOP_S)
    frames = np.lib.stride_tricks.sliding_window_view(mono, length)[::hop]
    pieces = [
        _pitches(frames[i : i + _CHUNK_FRAMES].astype(np.float64), window, shortest)
        for i in range(0, len(frames), _CHUNK_FRAMES)
    ]
    periods = np.concatenate(pieces)
    return np.where(periods > 0, sample_rate / np.maximum(periods, 1e-9), 0.0)


def _pitches(frames: NDArray[np.float64], window: int, shortest: int) -> NDArray[np.float64]:
    """Periods in samples, 0 where there is none."""
    length = frames.shape[1]
    num_lags = length - window
    frames = frames - frames.mean(axis=1, keepdims=True)
    size = 2 ** math.ceil(math.log2(length + window))
    head = np.fft.rfft(frames[:, :window], size)
    product = np.fft.irfft(np.conj(head) * np.fft.rfft(frames, size), size)[:, :num_lags]
    energy = np.cumsum(np.pad(frames**2, ((0, 0), (1, 0))), axis=1)
    shifted = energy[:, window : window + num_lags] - energy[:, :num_lags]
    difference = np.maximum(shifted[:, :1] + shifted - 2 * product, 0.0)
    mean = np.cumsum(difference[:, 1:], axis=1) / np.arange(1, num_lags)
    normalised = np.ones_like(difference)
    np.divide(difference[:, 1:], mean, out=normalised[:, 1:], where=mean > 1e-12)
    inner = normalised[:, 1:-1]
    is_dip = (inner <= normalised[:, :-2]) & (inner < normalised[:, 2:]) & (inner < _THRESHOLD)
    is_dip[:, : shortest - 1] = False
    lag = np.argmax(is_dip, axis=1) + 1
    rows = np.arange(len(frames))
    before, here, after = (normalised[rows, lag + step] for step in (-1, 0, 1))
    curve = before - 2 * here + after
    shift = np.where(curve > 1e-12, 0.5 * (before - after) / np.maximum(curve, 1e-12), 0.0)
    return np.where(is_dip.any(axis=1), lag + np.clip(shift, -1, 1), 0.0)
