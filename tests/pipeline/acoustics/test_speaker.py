from __future__ import annotations

import numpy as np
import pytest

from pipeline.acoustics.speaker import (
    SPEAKER_DIM,
    SpeakerEncoder,
    StatisticsEncoder,
    centre_and_scale,
    voice_statistics,
)
from tests.factories.clips import RATE, voice

VOICES = [(100.0, 0.92), (125.0, 1.0), (190.0, 1.1), (230.0, 1.2)]


def test_embedding_has_unit_length_and_the_documented_width():
    vector = StatisticsEncoder().embed(voice(2.0, 120.0)[None], RATE)
    assert vector.shape == (SPEAKER_DIM,)
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)


def test_other_takes_of_a_voice_are_closer_than_other_voices():
    takes = [
        [StatisticsEncoder().embed(voice(1.5, pitch, tract, seed)[None], RATE) for seed in range(4)]
        for pitch, tract in VOICES
    ]
    same = [float(a @ b) for take in takes for i, a in enumerate(take) for b in take[:i]]
    different = [
        float(a @ b)
        for i, one in enumerate(takes)
        for other in takes[:i]
        for a in one
        for b in other
    ]
    assert min(same) > max(different)


def test_embedding_hardly_depends_on_level_and_sample_rate():
    wave = voice(2.0, 120.0)[None]
    whole = StatisticsEncoder().embed(wave, RATE)
    assert float(whole @ StatisticsEncoder().embed(0.1 * wave, RATE)) > 0.99
    doubled = np.repeat(wave, 2, axis=1)  # images above 8 kHz lie outside the analysis
    assert float(whole @ StatisticsEncoder().embed(doubled, 2 * RATE)) > 0.9


def test_silence_has_the_zero_vector():
    assert not StatisticsEncoder().embed(np.zeros((1, RATE), np.float32), RATE).any()


@pytest.mark.parametrize("num_samples", [1, 100, 1000])
def test_tiny_clips_are_no_error(num_samples):
    wave = voice(1.0, 120.0)[None, 4000 : 4000 + num_samples]
    assert np.isfinite(StatisticsEncoder().embed(wave, RATE)).all()


def test_built_in_encoder_fits_the_interface():
    encoder: SpeakerEncoder = StatisticsEncoder()
    assert encoder.embed(voice(1.0, 120.0)[None], RATE).shape == (encoder.speaker_dim,)


def test_scale_is_the_deviation_inside_one_speaker():
    takes = np.zeros((2, 3, SPEAKER_DIM))
    takes[1] += 10.0  # speakers differ, takes do not
    takes[:, :, 0] += [-1.0, 0.0, 1.0]
    table = centre_and_scale(takes)
    assert table["centre"][1] == 5.0
    assert table["scale"][:2] == [1.0, 1e-3]


def test_statistics_have_the_width_of_the_shipped_table():
    assert voice_statistics(voice(1.0, 120.0)[None], RATE).shape == (SPEAKER_DIM,)
