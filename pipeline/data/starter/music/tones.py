"""Raw tones for instruments: band-limited waves, moving filters, plucked strings."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import signal

from pipeline.data.starter import dsp
from pipeline.data.starter.dsp import SAMPLE_RATE, Wave


def saw(frequency_hz: Wave, phase: float = 0.0) -> Wave:
    """Sawtooth along a frequency curve, its jumps smoothed over two samples (PolyBLEP)."""
    step = frequency_hz / SAMPLE_RATE
    position = (phase + np.cumsum(step)) % 1.0
    out = 2 * position - 1
    after = position < step
    share = position[after] / step[after]
    out[after] -= 2 * share - share**2 - 1
    before = position > 1 - step
    share = (position[before] - 1) / step[before]
    out[before] -= share**2 + 2 * share + 1
    return out


def pulse(frequency_hz: Wave, width: float = 0.5) -> Wave:
    """Pulse wave as the difference of two saws; `width` is the share of a period that is high."""
    return saw(frequency_hz) - saw(frequency_hz, width)


def sweep(wave: Wave, cutoff_hz: Wave) -> Wave:
    """Low-pass whose cutoff moves: a blend of fixed filters an octave apart."""
    centres = 2.0 ** np.arange(7, 14.1)  # 128 Hz to 16 kHz
    place = np.clip(np.log2(cutoff_hz / centres[0]), 0, len(centres) - 1)
    out = np.zeros_like(wave)
    for index, centre in enumerate(centres):
        weight = np.clip(1 - np.abs(place - index), 0, 1)
        if weight.any():
            out += weight * dsp.band(wave, None, float(centre), 2)
    return out


@lru_cache(maxsize=512)
def pluck(frequency: float, duration_s: float, brightness: float, decay_s: float) -> Wave:
    """A plucked string: noise in a loop of delay and damping (Karplus-Strong).

    Args:
        frequency: Hz.
        duration_s: Length.
        brightness: 0 (soft finger) to 1 (hard plectrum).
        decay_s: Time to fall by 60 dB at the fundamental.

    Source:
        Karplus and Strong 1983; fractional delay as in Jaffe and Smith 1983.
    """
    count = dsp.samples(duration_s)
    rng = np.random.default_rng(round(frequency * 100))
    damping = 0.5 - 0.45 * brightness  # share of the older neighbour in the loop's average
    period = SAMPLE_RATE / frequency - damping
    whole = int(period)
    rest = period - whole
    loop = 10 ** (-3 / (decay_s * frequency)) * np.convolve(
        [1 - damping, damping], [1 - rest, rest]
    )
    burst = np.zeros(count)
    length = min(count, whole)
    burst[:length] = rng.uniform(-1, 1, length)
    burst = dsp.band(burst, None, 400.0 + 9000.0 * brightness**1.5, 1)
    feedback = np.zeros(whole + 3)
    feedback[0] = 1
    feedback[whole : whole + 3] = -loop
    return signal.lfilter([1.0], feedback, burst)


def vibrato(count: int, depth: float, rate_hz: float = 5.5, onset_s: float = 0.25) -> Wave:
    """Factor on a frequency curve that sets in after a while."""
    time = dsp.times(count)
    return 1 + depth * np.clip(time / onset_s - 1, 0, 1) * np.sin(2 * np.pi * rate_hz * time)


def adsr(count: int, attack_s: float, decay_s: float, sustain: float, release_s: float) -> Wave:
    """Attack, decay, sustain and release within a length that includes the release."""
    time = dsp.times(count)
    body = np.where(
        time < attack_s,
        time / max(attack_s, 1e-4),
        sustain + (1 - sustain) * np.exp(-(time - attack_s) / max(decay_s / 3, 1e-4)),
    )
    left = (count - np.arange(count)) / SAMPLE_RATE
    return body * np.clip(left / max(release_s, 1e-4), 0, 1)
