"""Tempo and key of music are compared with those of its description."""

import numpy as np
import torch
from torch import Tensor

from pipeline.evaluation.listening import Listening
from pipeline.evaluation.music_metric import MusicMetric
from tests.factories.evaluation import figures, findings_of, held_out_clip

RATE = 16_000


def piece(bpm: float, root_hz: float) -> Tensor:
    """Twelve seconds of a major cadence in plucked chords on every beat."""
    time_s = np.arange(12 * RATE) / RATE
    wave = np.zeros_like(time_s)
    for beat, start_s in enumerate(np.arange(0, 11.5, 60 / bpm)):
        since = np.clip(time_s - start_s, 0, None)
        root = root_hz * 2 ** ((0, 5, 7, 0)[beat % 4] / 12)
        for semitone in (0, 4, 7):
            sound = np.sin(2 * np.pi * root * 2 ** (semitone / 12) * since) * np.exp(-8 * since)
            wave += np.where(time_s >= start_s, sound, 0)
    return torch.tensor(0.1 * wave, dtype=torch.float32)[None]


def test_tempo_and_key_are_those_asked_for() -> None:
    clip = held_out_clip(
        modality="music", description="Folk in C major at 120 BPM.", transcript=None
    )
    right, wrong = piece(120, 261.63), piece(100, 277.18)
    made = figures(findings_of(MusicMetric(), [Listening(clip, RATE, right, right, wrong)]))
    assert set(made) == {"tempo within 5 %", "tempo within 5 %, half or double allowed", "key"}
    for forms in made.values():
        assert forms == {"real": 1.0, "reconstructed": 1.0, "generated": 0.0}
    silent = figures(findings_of(MusicMetric(), [Listening(clip, RATE, right, right, None)]))
    assert {forms["generated"] for forms in silent.values()} == {0.0}


def test_descriptions_without_tempo_and_key_are_a_reason() -> None:
    clip = held_out_clip(modality="music", description="Folk.", transcript=None)
    wave = torch.zeros(1, RATE)
    found = findings_of(MusicMetric(), [Listening(clip, RATE, wave, wave, wave)])
    assert found.measures == []
    assert set(found.skipped) == {"tempo within 5 %", "key"}
