"""The frequency at which a low-pass filter ended a recording: what was upsampled, or coded hard."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import scipy.fft
from jaxtyping import Float
from numpy.typing import NDArray

_SIZE = 2_048
_DENSE_HOP, _DENSE_WINDOWS = 1_024, 64  # a short clip has to show all it has,
_HOP = 8_192  # of a long one every fourth window is enough
_MIN_WINDOWS = 3
_STEP_DB = 20.0
_LOW_SHARE, _HIGH_SHARE = 20, 98  # percentiles: gaps between partials count, single spurs do not
_EDGE_BINS = 8  # at least, or one partial would be all of the edge
_LOWEST_HZ = 2_400.0  # no recorder, telephone or codec ends below
_RATIO = 1.02
_NEAR_DB = 10.0  # where a quick look at means shows less, no percentile is taken
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
        starts = []
        while len(self._held) >= self._next + _SIZE:
            starts.append(self._next)
            is_dense = self._num_windows + len(starts) < _DENSE_WINDOWS
            self._next += _DENSE_HOP if is_dense else _HOP
        if starts:
            windows = np.lib.stride_tricks.sliding_window_view(self._held, _SIZE)[starts]
            spectrum = scipy.fft.rfft(windows * _window(), axis=1)
            self._power += (spectrum.real**2 + spectrum.imag**2).sum(axis=0, dtype=np.float64)
            self._num_windows += len(windows)
        drop = min(self._next, len(self._held))
        self._held, self._next = self._held[drop:], self._next - drop

    def cutoff_hz(self) -> float | None:
        """Frequency at which the spectrum drops sharply, Hz; None without a drop or enough audio.

        Energy must reach up to the cliff without gaps, and nothing above it may come near. So a
        voice, a bell or a bass note that just holds no high frequencies has no cut-off: between its
        partials, and beyond the last of them, lies one and the same noise.
        """
        if self._num_windows < _MIN_WINDOWS:
            return None
        level = 10 * np.log10(self._power / self._num_windows + _FLOOR)
        best_hz, best_step = None, _STEP_DB
        for frequency in self._candidates(level):
            step = _step_db(level, frequency * _SIZE / self._rate)
            if step > best_step:
                best_hz, best_step = frequency, step
        return best_hz

    def _candidates(self, level: NDArray[np.float64]) -> list[float]:
        """Frequencies around which the mean level falls at all."""
        highest = 0.95 * self._rate / 2 / 1.1
        if highest <= _LOWEST_HZ:
            return []
        count = math.ceil(math.log(highest / _LOWEST_HZ) / math.log(_RATIO))
        frequencies = _LOWEST_HZ * _RATIO ** np.arange(count)
        place = frequencies * _SIZE / self._rate
        sums = np.concatenate([[0.0], np.cumsum(level)])
        ends = [np.round(share * place).astype(int) for share in (0.85, 0.96, 1.06, 1.17)]
        ends[-1] = np.minimum(ends[-1], len(level))
        below, above = (
            (sums[high] - sums[low]) / np.maximum(high - low, 1)
            for low, high in (ends[:2], ends[2:])
        )
        return [float(frequency) for frequency in frequencies[below - above > _NEAR_DB]]


def _step_db(level: NDArray[np.float64], place: float) -> float:
    """How far all above a bin lies below the half octave, and the strip, that end there, dB."""
    low, high, start = (round(share * place) for share in (0.5, 0.96, 1.06))
    width = max(_EDGE_BINS, round(0.11 * place))
    below, strip = level[low:high], level[high - width : high]
    above = level[start:]
    least = min(float(np.percentile(part, _LOW_SHARE)) for part in (below, strip))
    # Of all that lies above, a few per cent would be wide enough to hide where the fall ends.
    return least - max(float(np.percentile(part, _HIGH_SHARE)) for part in (above, above[:width]))


@cache
def _window() -> NDArray[np.float32]:
    return np.blackman(_SIZE).astype(np.float32)
