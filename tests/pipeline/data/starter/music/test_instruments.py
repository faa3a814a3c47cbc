"""Every instrument is in tune, bounded, and over when its time is."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.starter import dsp
from pipeline.data.starter.music.instruments import INSTRUMENTS
from pipeline.data.starter.music.styles import STYLES
from pipeline.data.starter.music.theory import frequency

_LOW = {name for style in STYLES.values() for name in style.low}


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_an_instrument_is_in_tune_and_bounded(name: str) -> None:
    wanted = frequency(40 if name in _LOW else 67)
    tone = INSTRUMENTS[name](wanted, 0.6)
    assert np.isfinite(tone).all()
    assert 0.5 < len(tone) / dsp.SAMPLE_RATE <= 2.0
    assert 0.2 < np.abs(tone).max() < 1.6
    assert np.abs(tone[-20:]).max() < 0.05
    spectrum = np.abs(np.fft.rfft(tone * np.hanning(len(tone)), 1 << 18))
    bins = np.fft.rfftfreq(1 << 18, 1 / dsp.SAMPLE_RATE)
    near = (bins > 0.94 * wanted) & (bins < 1.06 * wanted)
    found = bins[near][spectrum[near].argmax()]
    assert abs(1200 * np.log2(found / wanted)) < 20  # detuned pairs beat around the pitch


def test_instruments_differ() -> None:
    tones = [INSTRUMENTS[name](330.0, 0.4)[:17_640] for name in INSTRUMENTS if name != "cello"]
    shapes = [np.abs(np.fft.rfft(tone, 17_640))[:6000] for tone in tones]
    units = np.stack([shape / np.linalg.norm(shape) for shape in shapes])
    likeness = units @ units.T - np.eye(len(units))
    assert likeness.max() < 0.9999


def test_playing_twice_gives_the_same_tone() -> None:
    for name in ("piano", "flute", "acoustic guitar"):
        first, second = (INSTRUMENTS[name](440.0, 0.2) for _ in range(2))
        assert (first == second).all()
