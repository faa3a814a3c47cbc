"""The frequency at which a low-pass filter ended a recording: what was upsampled, or coded hard."""

from __future__ import annotations

from functools import cache

import numpy as np
import scipy.fft
from jaxtyping import Float
from numpy.typing import NDArray

_SIZE = 2_048
_HOP = 8_192  # one window in four: a spectrum of the whole, not of every moment
_MIN_WINDOWS = 8
_STEP_DB = 20.0  # no voice or instrument falls so much within a tenth of its frequency
_LOWEST_HZ = 1_000.0
_FLOOR = 1e-20


class BandwidthMeter:
    """Adds up the long-term spectrum of a clip block by block.

    Args:
        sample_rate: Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._power = np.zeros(_SIZE // 2 + 1)
        self._num_windows = 0
        self._held: NDArray[np.float32] = np.zeros(0, np.float32)
        self._next = 0  # where the next window begins, in what is held

    def add(self, block: Float[np.ndarray, "channels samples"]) -> None:
        """The next samples."""
        self._held = np.concatenate([self._held, block[0]])
        if len(self._held) >= self._next + _SIZE:
            begun = self._held[self._next :]
            windows = np.lib.stride_tricks.sliding_window_view(begun, _SIZE)[::_HOP]
            spectrum = scipy.fft.rfft(windows * _window(), axis=1)
            self._power += (spectrum.real**2 + spectrum.imag**2).sum(axis=0, dtype=np.float64)
            self._num_windows += len(windows)
            self._next += len(windows) * _HOP
        drop = min(self._next, len(self._held))
        self._held, self._next = self._held[drop:], self._next - drop

    def cutoff_hz(self) -> float | None:
        """Where the spectrum falls off a cliff, Hz; None where it does not, or little was heard.

        Broad energy must reach up to the cliff, and nothing above it may come near: a voice, a
        rumble or a tone that just holds no high frequencies has no cut-off.
        """
        if self._num_windows < _MIN_WINDOWS:
            return None
        level = 10 * np.log10(self._power / self._num_windows + _FLOOR)
        width_hz = self._rate / _SIZE
        best_hz, best_step = None, _STEP_DB
        frequency = _LOWEST_HZ
        while frequency * 1.1 < 0.95 * self._rate / 2:
            low, high = round(0.5 * frequency / width_hz), round(0.96 * frequency / width_hz)
            above = level[round(1.06 * frequency / width_hz) :]
            step = float(np.median(level[low:high]) - np.percentile(above, 98))
            edge = level[round(0.85 * frequency / width_hz) : high]
            step = min(step, float(np.median(edge) - np.percentile(above[: len(edge)], 98)))
            if step > best_step:
                best_hz, best_step = frequency, step
            frequency *= 1.02
        return best_hz


@cache
def _window() -> NDArray[np.float32]:
    return np.blackman(_SIZE).astype(np.float32)
