"""Decay time of a sound once it ends; for a short source, the reverberation time of its room."""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

_WINDOW_S = 0.032
_HOP_S = 0.008
_CHUNK_FRAMES = 4096
_EDGES_HZ = (355.0, 710.0, 1420.0, 2840.0)  # octaves around 500, 1000 and 2000 Hz
_SPANS = (5, 10, 20, 40, 80)  # frames that a line is laid through: 40 to 640 ms
_FALL_DB = (12.0, 40.0)  # a line that falls less may be anything, one that falls more is two
_STRAIGHT_DB = 1.5  # root mean square distance from the line
_ABOVE_FLOOR_DB = 8.0
_BELOW_PEAK_DB = 45.0
_MIN_LINES = 6
_SHARE = 45.0  # percentile of the lines: the source may die slower than the room, never faster


def decay_time_s(mono: NDArray[np.float32], sample_rate: int) -> float | None:
    """Time in which the sound falls by 60 dB once it ends, seconds; None without a straight decay.

    Straight lines are laid through the levels of three octaves wherever they fall steadily. Of
    speech, steps and the like this is an estimate of the reverberation time of the room. A string
    or a bell that rings longer than its room gives its own time.

    Args:
        mono: Samples.
        sample_rate: Rate of the samples, Hz; at least 6000.
    """
    levels = _octave_levels(mono, sample_rate)
    floor = np.percentile(levels, 5, axis=1, keepdims=True)
    peak = levels.max(axis=1, keepdims=True)
    lowest = np.maximum(floor + _ABOVE_FLOOR_DB, peak - _BELOW_PEAK_DB)
    times = []
    for span in _SPANS:
        if levels.shape[1] < span:
            break
        fall, rough, end = _lines(levels, span)
        is_fall = (fall > _FALL_DB[0]) & (fall < _FALL_DB[1])
        is_fall &= (rough < _STRAIGHT_DB) & (end > lowest)
        times.append(60.0 * (span - 1) * _HOP_S / fall[is_fall])
    found = np.concatenate(times) if times else np.zeros(0)
    return float(np.percentile(found, _SHARE)) if len(found) >= _MIN_LINES else None


def _octave_levels(mono: NDArray[np.float32], sample_rate: int) -> NDArray[np.float64]:
    """Power of each octave over time, dB, `octaves frames`."""
    size, hop = round(_WINDOW_S * sample_rate), round(_HOP_S * sample_rate)
    window = np.hanning(size).astype(np.float32)
    padded = np.pad(mono, (0, max(0, size - len(mono))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    edges = [round(edge * size / sample_rate) for edge in _EDGES_HZ]
    powers = []
    for start in range(0, len(frames), _CHUNK_FRAMES):
        spectrum = scipy.fft.rfft(frames[start : start + _CHUNK_FRAMES] * window, axis=1)
        power = spectrum.real**2 + spectrum.imag**2
        powers.append(np.add.reduceat(power[:, : edges[-1]], edges[:-1], axis=1))
    scaled = np.concatenate(powers).T.astype(np.float64) / np.square(window.sum())
    levels: NDArray[np.float64] = 10 * np.log10(np.maximum(scaled, 1e-10))
    return levels


def _lines(
    levels: NDArray[np.float64], span: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Least-squares line through every `span` levels: fall, distance from it, and last level."""
    time = np.arange(span) - (span - 1) / 2
    windows = np.lib.stride_tricks.sliding_window_view(levels, span, axis=1)
    slope = windows @ (time / np.square(time).sum())
    variance = np.maximum(windows.var(axis=2) - np.square(slope) * np.square(time).mean(), 0)
    return -slope * (span - 1), np.sqrt(variance), windows[..., -1]
