from __future__ import annotations

import numpy as np
import pytest

from pipeline.audio_io import resample
from pipeline.data.bandwidth import BandwidthMeter

RATE = 48_000


def cutoff(waveform, sample_rate=RATE, block=30_000):
    meter = BandwidthMeter(sample_rate)
    for start in range(0, waveform.shape[1], block):
        meter.add(waveform[:, start : start + block])
    return meter.cutoff_hz()


def noise(rate, duration_s=2.0):
    samples = np.random.default_rng(0).standard_normal((1, round(duration_s * rate)))
    return (0.1 * samples).astype(np.float32)


def in_16_bit(waveform):
    return (np.round(waveform * 32_768) / 32_768).astype(np.float32)


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000])
def test_upsampled_audio_ends_at_half_its_former_rate(rate):
    found = cutoff(in_16_bit(resample(noise(rate), rate, RATE)))
    assert found == pytest.approx(rate / 2, rel=0.08)


def test_blocks_change_nothing():
    waveform = in_16_bit(resample(noise(16_000), 16_000, RATE))
    assert cutoff(waveform, block=1_024) == cutoff(waveform, block=10**6)


def test_full_band_audio_has_no_cutoff():
    assert cutoff(noise(RATE)) is None


def test_a_falling_spectrum_is_no_cutoff():
    waveform = np.cumsum(noise(RATE), axis=1)
    assert cutoff(in_16_bit(0.3 * waveform / np.abs(waveform).max())) is None


@pytest.mark.parametrize("frequency", [440.0, 3_000.0])
def test_a_tone_is_no_cutoff(frequency):
    time = np.arange(2 * RATE) / RATE
    assert cutoff(in_16_bit(0.5 * np.sin(2 * np.pi * frequency * time)[None])) is None


def test_a_short_or_silent_clip_is_not_judged():
    assert cutoff(resample(noise(8_000, 0.2), 8_000, RATE)) is None
    assert cutoff(np.zeros((1, 2 * RATE), np.float32)) is None
