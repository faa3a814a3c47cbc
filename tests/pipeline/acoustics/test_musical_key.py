from __future__ import annotations

import numpy as np
import pytest

from pipeline.acoustics.musical_key import KEY_NAMES, estimate_key

RATE = 8_000
MAJOR, HARMONIC_MINOR = (0, 2, 4, 5, 7, 9, 11, 12), (0, 2, 3, 5, 7, 8, 11, 12)
CADENCE = ((0, 4, 7), (5, 9, 12), (7, 11, 14), (0, 4, 7))
MINOR_CADENCE = ((0, 3, 7), (5, 8, 12), (7, 11, 14), (0, 3, 7))


def note(pitch, duration_s, a_hz=440.0):
    """A plucked tone with five overtones; MIDI numbers for pitch."""
    time = np.arange(round(duration_s * RATE)) / RATE
    frequency = a_hz * 2 ** ((pitch - 69) / 12)
    partials = (np.sin(2 * np.pi * k * frequency * time) / k for k in range(1, 6))
    return 0.1 * np.exp(-3 * time) * sum(partials)


def played(chords, duration_s, a_hz=440.0):
    tones = (sum(note(pitch, duration_s, a_hz) for pitch in chord) for chord in chords)
    return np.concatenate(list(tones)).astype(np.float32)


def key_of(wave):
    key = estimate_key(wave, RATE)
    return None if key is None else KEY_NAMES[key.number]


@pytest.mark.parametrize("tonic", [0, 3, 6, 9, 11])
@pytest.mark.parametrize(
    ("scale", "first"), [(MAJOR, 0), (HARMONIC_MINOR, 12)], ids=["major", "minor"]
)
def test_a_scale_up_and_down_has_its_key(tonic, scale, first):
    up = [(60 + tonic + step,) for step in scale]
    assert key_of(played(up + up[::-1], 0.3)) == KEY_NAMES[first + tonic]


@pytest.mark.parametrize("tonic", range(12))
@pytest.mark.parametrize(("chords", "first"), [(CADENCE, 0), (MINOR_CADENCE, 12)])
def test_a_cadence_has_its_key_for_certain(tonic, chords, first):
    wave = played([[53 + tonic + step for step in chord] for chord in chords], 0.6)
    key = estimate_key(wave, RATE)
    assert key.number == first + (5 + tonic) % 12
    assert key.confidence > 0.15


def test_instruments_tuned_a_quarter_tone_apart_from_440_hz_make_no_difference():
    chords = [[60 + step for step in chord] for chord in CADENCE]
    assert key_of(played(chords, 0.6, a_hz=440 * 2 ** (0.4 / 12))) == "C major"


def test_a_natural_minor_scale_has_a_low_confidence_against_its_relative():
    steps = [(60 + step,) for step in (0, 2, 3, 5, 7, 8, 10, 12)]
    key = estimate_key(played(steps + steps[::-1], 0.3), RATE)
    assert KEY_NAMES[key.number] in ("C minor", "E-flat major")
    assert key.confidence < 0.15


def test_noise_silence_and_short_clips_have_no_key():
    noise = np.random.default_rng(0).standard_normal(6 * RATE).astype(np.float32)
    assert estimate_key(0.1 * noise, RATE) is None
    assert estimate_key(np.zeros(6 * RATE, np.float32), RATE) is None
    assert estimate_key(played([(60, 64, 67)], 0.5), RATE) is None
