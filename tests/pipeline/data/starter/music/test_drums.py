"""Drums are short, loud at once, and each in its own part of the spectrum."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.starter import dsp
from pipeline.data.starter.music.drums import hit
from pipeline.data.starter.music.styles import STYLES

_DRUMS = sorted({drum for style in STYLES.values() for drum in style.drums})


def _centroid_hz(wave: dsp.Wave) -> float:
    power = np.abs(np.fft.rfft(wave)) ** 2
    return float((power * np.fft.rfftfreq(len(wave), 1 / dsp.SAMPLE_RATE)).sum() / power.sum())


@pytest.mark.parametrize("drum", _DRUMS)
def test_a_hit_is_loud_at_once_and_fades(drum: str) -> None:
    wave = hit(drum)
    assert np.isfinite(wave).all()
    assert 0.2 < np.abs(wave).max() < 1.8
    assert np.abs(wave).argmax() < 0.06 * dsp.SAMPLE_RATE
    quarter = len(wave) // 4
    assert dsp.rms(wave[-quarter:]) < 0.2 * dsp.rms(wave[:quarter])


def test_drums_lie_where_they_belong() -> None:
    for low in ("kick", "bass drum", "noise kick"):
        assert _centroid_hz(hit(low)) < 300
    assert 500 < _centroid_hz(hit("snare")) < 6000
    for high in ("hi-hat", "open hi-hat", "noise hat"):
        assert _centroid_hz(hit(high)) > 7000
