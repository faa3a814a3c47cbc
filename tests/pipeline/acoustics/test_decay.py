from __future__ import annotations

import numpy as np
import pytest
import scipy.signal

from pipeline.acoustics.decay import decay_time_s

RATE = 8_000


def in_a_room(wave, decay_s, rng):
    """Direct sound and, as strong, noise that dies away by 60 dB in `decay_s`."""
    time = np.arange(round(1.2 * decay_s * RATE)) / RATE
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / decay_s)
    tail /= np.sqrt(np.square(tail).sum())
    tail[0] += 1.0
    return scipy.signal.fftconvolve(wave, tail)


def measured(wave, rng, floor=5e-4):
    wave = 0.5 * wave / np.abs(wave).max() + floor * rng.standard_normal(len(wave))
    return decay_time_s(wave.astype(np.float32), RATE)


def bursts(rng, duration_s=8.0):
    is_on = (np.arange(round(duration_s * RATE)) / RATE) % 0.9 < 0.25
    return is_on * rng.standard_normal(len(is_on))


def syllables(rng, duration_s=10.0):
    """What speech is like to this: a gliding hum and hisses, each with an onset and an end."""
    wave, at = np.zeros(round(duration_s * RATE)), 0.1
    while at < duration_s - 0.4:
        length = rng.uniform(0.08, 0.25)
        time = np.arange(round(length * RATE)) / RATE
        shape = np.sin(np.pi * time / length) ** 0.5 * rng.uniform(0.3, 1)
        phase = 2 * np.pi * (rng.uniform(90, 200) * time + rng.uniform(-60, 60) * time**2)
        hum = sum(np.sin(k * phase + k) / k**0.7 for k in range(1, 20))
        sound = hum if rng.random() < 0.7 else rng.standard_normal(len(time))
        start = round(at * RATE)
        wave[start : start + len(time)] += shape * sound
        at += length + (rng.uniform(0.25, 0.6) if rng.random() < 0.2 else rng.uniform(0, 0.08))
    return wave


@pytest.mark.parametrize("decay_s", [0.15, 0.3, 0.5, 0.8, 1.2, 2.0])
def test_noise_bursts_in_a_room_give_its_reverberation_time(decay_s):
    rng = np.random.default_rng(0)
    assert measured(in_a_room(bursts(rng), decay_s, rng), rng) == pytest.approx(decay_s, rel=0.15)


def test_bursts_without_a_room_end_at_once():
    rng = np.random.default_rng(0)
    found = measured(bursts(rng), rng)
    assert found is None or found < 0.1


@pytest.mark.parametrize("decay_s", [0.5, 0.8, 1.2])
def test_running_syllables_in_a_room_give_its_reverberation_time_about(decay_s):
    rng = np.random.default_rng(1)
    found = measured(in_a_room(syllables(rng), decay_s, rng), rng)
    assert found == pytest.approx(decay_s, rel=0.3)


def test_syllables_without_a_room_are_dry():
    rng = np.random.default_rng(1)
    found = measured(syllables(rng), rng)
    assert found is None or found < 0.3


def test_continuous_sound_has_no_decay_time():
    rng = np.random.default_rng(0)
    assert decay_time_s(rng.standard_normal(4 * RATE).astype(np.float32), RATE) is None
    assert decay_time_s(np.zeros(4 * RATE, np.float32), RATE) is None
    assert decay_time_s(np.full(10, 0.5, np.float32), RATE) is None


def test_loudness_makes_no_difference():
    rng = np.random.default_rng(0)
    wave = in_a_room(bursts(rng), 0.6, rng).astype(np.float32)
    assert decay_time_s(0.01 * wave, RATE) == pytest.approx(decay_time_s(wave, RATE), rel=0.05)
