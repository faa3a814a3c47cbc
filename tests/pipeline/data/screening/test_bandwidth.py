from __future__ import annotations

import numpy as np
import pytest

from pipeline.audio.files import resample
from pipeline.data.screening.bandwidth import BandwidthMeter

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
    assert cutoff(resample(noise(8_000, 0.08), 8_000, RATE)) is None
    assert cutoff(np.zeros((1, 2 * RATE), np.float32)) is None


def bell(prime_hz, duration_s=3.0, rate=44_100):
    """Partials that die away, a tap, and the faint falling noise of a place."""
    time = np.arange(round(duration_s * rate)) / rate
    ratios = np.array([0.5, 1, 1.19, 1.5, 2, 2.52, 2.67, 3.01, 4.02, 5.4])
    partials = (
        np.exp(-time * ratio) * np.sin(2 * np.pi * prime_hz * ratio * time) for ratio in ratios
    )
    air = np.random.default_rng(1).standard_normal(len(time))
    air = np.fft.irfft(np.fft.rfft(air) / (30 + np.arange(len(time) // 2 + 1)) ** 0.5, len(time))
    return (0.05 * sum(partials) + 0.05 * air)[None].astype(np.float32)


@pytest.mark.parametrize("prime_hz", [220.0, 410.0, 900.0, 1_400.0])
def test_a_bell_is_no_cutoff_until_it_is_upsampled(prime_hz):
    waveform = bell(prime_hz)
    assert cutoff(in_16_bit(waveform), 44_100) is None
    narrow = resample(resample(waveform, 44_100, 8_000), 8_000, 44_100)
    assert cutoff(in_16_bit(narrow), 44_100) == pytest.approx(4_000, rel=0.08)


def test_a_bass_note_with_its_overtones_is_no_cutoff():
    time = np.arange(2 * RATE) / RATE
    note = sum(np.sin(2 * np.pi * 41.2 * k * time) / k for k in range(1, 40))
    assert cutoff(in_16_bit(0.2 * note[None] + 0.001 * noise(RATE))) is None


def test_a_spoken_word_is_long_enough():
    word = in_16_bit(resample(noise(8_000, 0.3), 8_000, RATE))
    assert cutoff(word) == pytest.approx(4_000, rel=0.08)
