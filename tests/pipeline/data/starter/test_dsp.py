"""The bricks of synthesis do what their names say, measured."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from pipeline.data.starter import dsp


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def _octave_levels(wave: dsp.Wave) -> np.ndarray:
    power = np.abs(np.fft.rfft(wave)) ** 2
    frequency = np.fft.rfftfreq(len(wave), 1 / dsp.SAMPLE_RATE)
    edges = 250 * 2.0 ** np.arange(6)
    means = [power[(frequency >= low) & (frequency < high)].mean() for low, high in pairwise(edges)]
    return 10 * np.log10(means)


@pytest.mark.parametrize("slope_db", [0.0, -3.0, -6.0])
def test_noise_falls_by_its_slope(slope_db: float) -> None:
    levels = _octave_levels(dsp.noise(_rng(), 1 << 17, slope_db))
    assert np.diff(levels) == pytest.approx(np.full(4, slope_db), abs=0.7)  # of random octaves


def test_modes_fall_by_sixty_decibels_in_their_decay() -> None:
    tone = dsp.modes(1.2, [1000.0], [1.0], [1.0])
    early, late = np.abs(tone[:441]).max(), np.abs(tone[44_100:44_541]).max()
    assert 20 * np.log10(early / late) == pytest.approx(60, abs=1)


def test_modes_beyond_the_band_are_left_out() -> None:
    assert not dsp.modes(0.1, [30_000.0], [1.0], [1.0]).any()


def test_oscillator_follows_its_frequency_and_drops_partials_that_would_alias() -> None:
    tone = dsp.oscillate(np.full(44_100, 9000.0), (1.0, 0.5, 0.5))
    spectrum = np.abs(np.fft.rfft(tone)) / 22_050
    assert spectrum[9000] == pytest.approx(1, abs=1e-3)
    assert spectrum[18_000] == pytest.approx(0.5, abs=1e-3)
    assert spectrum[44_100 - 27_000] < 1e-3  # where the third partial would fold to


def test_wander_stays_within_bounds_and_turns() -> None:
    curve = dsp.wander(_rng(), 441_000, 2.0)
    assert np.abs(curve).max() <= 1
    assert 8 < np.count_nonzero(np.diff(np.sign(curve))) < 60


def test_fades_start_and_end_at_zero_and_keep_the_middle() -> None:
    faded = dsp.fade(np.ones(1000), 0.005, 0.005)
    assert faded[0] == 0
    assert faded[-1] == 0
    assert faded[400:600].min() == 1


def test_adding_beyond_the_end_is_cut() -> None:
    into = np.zeros(10)
    dsp.add(into, np.ones(10), 7 / dsp.SAMPLE_RATE, 0.5)
    dsp.add(into, np.ones(10), 1.0)
    assert into.tolist() == [0] * 7 + [0.5] * 3


def test_grains_come_at_their_rate() -> None:
    grains = dsp.scatter(_rng(), 441_000, 50.0, [np.ones(1), np.ones(1)], 0.0)
    assert np.count_nonzero(grains) == pytest.approx(500, abs=70)  # three deviations of Poisson


def test_room_keeps_the_length_and_rings_on() -> None:
    click = np.zeros(44_100)
    click[100] = 1
    heard = dsp.room(click, _rng(), 0.5, 0.5)
    assert len(heard) == len(click)
    assert heard[100] == pytest.approx(1, abs=0.05)
    assert dsp.rms(heard[5000:10_000]) > 10 * dsp.rms(heard[22_000:30_000])


def test_level_is_of_the_active_part_and_the_peak_is_held() -> None:
    wave = np.concatenate([np.zeros(40_960), 0.01 * _rng().standard_normal(40_960)])
    assert 20 * np.log10(dsp.rms(dsp.to_level(wave, -20)[40_960:])) == pytest.approx(-20, abs=0.1)
    click = np.zeros(4096)
    click[5] = 0.1
    assert np.abs(dsp.to_level(click, -3)).max() == pytest.approx(10 ** (-1 / 20))
    assert not dsp.to_level(np.zeros(10), -20).any()


def test_spread_stereo_mixes_back_to_the_same_wave() -> None:
    wave = dsp.noise(_rng(), 10_000)
    left, right = dsp.spread_stereo(wave, _rng())
    assert (left + right) / 2 == pytest.approx(wave)
    assert 0 < np.corrcoef(left, right)[0, 1] < 0.6


def test_pan_keeps_the_power() -> None:
    left, right = dsp.pan(np.ones(4), -0.5)
    assert left**2 + right**2 == pytest.approx(np.ones(4))
    assert (left > right).all()


def test_far_away_is_duller_and_softer() -> None:
    near = dsp.noise(_rng(), 1 << 16)
    far = dsp.far_away(near, _rng())
    drop = _octave_levels(far) - _octave_levels(near)
    assert drop.max() < 0
    assert drop[-1] < drop[0] - 3
