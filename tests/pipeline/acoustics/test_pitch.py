from __future__ import annotations

import numpy as np
import pytest

from pipeline.acoustics.pitch import PitchRange, pitch_track

RATE = 8000


@pytest.mark.parametrize("frequency_hz", [65.0, 110.0, 317.0, 800.0])
def test_every_frame_of_a_pulse_train_has_its_pitch(frequency_hz):
    time = np.arange(RATE) / RATE
    wave = sum(np.cos(2 * np.pi * k * frequency_hz * time) for k in range(1, 5)).astype(np.float32)
    track = pitch_track(wave, RATE, PitchRange(60.0, 1000.0))
    assert track == pytest.approx(frequency_hz, rel=0.01)


def test_tones_outside_the_range_are_not_reported_inside_it_as_themselves():
    time = np.arange(RATE) / RATE
    wave = np.sin(2 * np.pi * 30.0 * time).astype(np.float32)
    track = pitch_track(wave, RATE, PitchRange(60.0, 400.0))
    assert not track.any()


def test_shorter_than_one_window_is_empty():
    assert len(pitch_track(np.ones(100, np.float32), RATE, PitchRange(60.0, 400.0))) == 0


def test_silence_is_unvoiced():
    assert not pitch_track(np.zeros(RATE, np.float32), RATE, PitchRange(60.0, 400.0)).any()
