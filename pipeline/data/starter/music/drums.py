"""Drums and cymbals, each a single hit."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from pipeline.data.starter import dsp
from pipeline.data.starter.dsp import SAMPLE_RATE, Wave


def _thump(start_hz: float, end_hz: float, fall_s: float, decay_s: float) -> Wave:
    time = dsp.times(dsp.samples(decay_s))
    pitch = end_hz + (start_hz - end_hz) * np.exp(-time / fall_s)
    return np.sin(2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE) * dsp.strike(
        len(time), 0.001, decay_s
    )


def _burst(low_hz: float, high_hz: float, decay_s: float, seed: int = 3) -> Wave:
    count = dsp.samples(decay_s)
    rough = dsp.noise(np.random.default_rng(seed), count) * dsp.strike(count, 0.0005, decay_s)
    return dsp.band(rough, low_hz, high_hz, 1)


def _metal(decay_s: float, low_hz: float) -> Wave:
    """Six square waves out of tune with each other, above a high-pass, and noise."""
    time = dsp.times(dsp.samples(decay_s))
    clang = np.zeros_like(time)
    for pitch in (205.3, 304.4, 369.6, 522.7, 540.0, 800.0):
        clang += np.sign(np.sin(2 * np.pi * 2.1 * pitch * time))
    hiss = dsp.noise(np.random.default_rng(11), len(time))
    return dsp.band(0.1 * clang + 0.3 * hiss, low_hz, None, 2) * dsp.strike(
        len(time), 0.001, decay_s
    )


def _joined(*parts: Wave) -> Wave:
    out = np.zeros(max(map(len, parts)))
    for part in parts:
        out[: len(part)] += part
    return out


def _clap() -> Wave:
    out = np.zeros(dsp.samples(0.3))
    for number, start in enumerate((0.0, 0.011, 0.023)):
        dsp.add(out, _burst(800.0, 4000.0, 0.02, number), start, 1.2)
    dsp.add(out, _burst(800.0, 4000.0, 0.22), 0.03)
    return out


_HITS: dict[str, Callable[[], Wave]] = {
    "kick": lambda: _joined(_thump(160, 48, 0.03, 0.38), 0.3 * _burst(1500.0, 6000.0, 0.01)),
    "snare": lambda: _joined(
        0.6 * _thump(260, 180, 0.02, 0.15), 0.8 * _burst(1200.0, 9000.0, 0.24)
    ),
    "hi-hat": lambda: 0.9 * _metal(0.07, 7000.0),
    "open hi-hat": lambda: 0.7 * _metal(0.3, 6500.0),
    "ride cymbal": lambda: 0.6 * _metal(0.9, 4500.0),
    "cymbal": lambda: 0.6 * _metal(1.4, 3000.0),
    "clap": _clap,
    "side stick": lambda: _joined(
        dsp.modes(0.06, [480, 1700, 2600], [0.05, 0.03, 0.02], [0.6, 0.7, 0.3]),
        0.4 * _burst(2000.0, 8000.0, 0.02),
    ),
    "bass drum": lambda: _joined(_thump(95, 52, 0.05, 0.6), 0.15 * _burst(150.0, 900.0, 0.1)),
    "snare drum": lambda: (
        0.7 * _joined(0.4 * _thump(240, 200, 0.02, 0.1), 0.8 * _burst(1800.0, 10000.0, 0.16))
    ),
    "noise kick": lambda: _thump(320, 45, 0.025, 0.14),
    "noise snare": lambda: 0.6 * _burst(500.0, 12000.0, 0.14),
    "noise hat": lambda: 0.5 * _burst(6000.0, 16000.0, 0.04),
}


@lru_cache(maxsize=64)
def hit(name: str) -> Wave:
    """One stroke of a drum of `styles`; the same each time."""
    return _HITS[name]()
