"""Raw tones are in tune and do not alias."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.starter import dsp
from pipeline.data.starter.music.tones import adsr, pluck, pulse, saw, sweep, vibrato


def _spectrum(wave: dsp.Wave) -> np.ndarray:
    return np.abs(np.fft.rfft(wave[:44_100] * np.hanning(44_100))) / 11_025


@pytest.mark.parametrize("frequency", [110.0, 1000.0])
def test_a_saw_has_all_harmonics_falling_with_their_number(frequency: float) -> None:
    spectrum = _spectrum(saw(np.full(44_100, frequency)))
    for number in (1, 2, 3, 4):
        level = spectrum[int(number * frequency)]
        assert level == pytest.approx(2 / np.pi / number, rel=0.15)  # the smoothing dulls it


def test_a_saw_aliases_far_less_than_a_naive_one() -> None:
    frequency = 2999.0
    naive = 2 * ((np.arange(44_100) * frequency / 44_100) % 1) - 1
    harmonics = {int(frequency * number) for number in range(1, 8)}
    between = [bin_ for bin_ in range(50, 10_000) if all(abs(bin_ - h) > 5 for h in harmonics)]
    ours = _spectrum(saw(np.full(44_100, frequency)))[between]
    assert (ours**2).sum() < 0.1 * (_spectrum(naive)[between] ** 2).sum()


def test_a_square_has_odd_harmonics_only() -> None:
    spectrum = _spectrum(pulse(np.full(44_100, 441.0)))
    assert spectrum[441] > 100 * spectrum[882]
    assert spectrum[1323] > 0.25 * spectrum[441]


@pytest.mark.parametrize("frequency", [55.0, 146.8, 440.0, 987.8])
def test_a_string_is_in_tune_and_fades(frequency: float) -> None:
    tone = pluck(frequency, 1.5, 0.6, 2.0)
    spectrum = np.abs(np.fft.rfft(tone * np.hanning(len(tone)), 1 << 19))
    bins = np.fft.rfftfreq(1 << 19, 1 / dsp.SAMPLE_RATE)
    near = np.abs(np.log2(bins[1:] / frequency)) < 0.08
    found = bins[1:][near][spectrum[1:][near].argmax()]
    assert 1200 * np.log2(found / frequency) == pytest.approx(0, abs=5)
    assert dsp.rms(tone[-8000:]) < 0.3 * dsp.rms(tone[:8000])


def test_a_sweep_closes_as_its_cutoff_falls() -> None:
    wave = dsp.noise(np.random.default_rng(0), 44_100)
    swept = sweep(wave, np.geomspace(16_000, 128, 44_100))
    assert dsp.rms(swept[:4000]) > 0.5
    assert dsp.rms(swept[-4000:]) < 0.15


def test_envelope_and_vibrato() -> None:
    envelope = adsr(44_100, 0.1, 0.2, 0.5, 0.2)
    assert envelope[4410] == pytest.approx(1, abs=0.01)
    assert envelope[30_000] == pytest.approx(0.5, abs=0.01)
    assert envelope[-1] < 0.001
    factor = vibrato(44_100, 0.01)
    assert factor[:11_000].max() == 1
    assert factor.max() == pytest.approx(1.01, abs=1e-3)
