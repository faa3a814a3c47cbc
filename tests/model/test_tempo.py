"""Tempo of a description, and positions in beats."""

import dataclasses

import pytest

from model.tempo import position_rate, requested_tempo_bpm
from model.text import Prompt
from model.timebase import Timebase
from tests.factories.model import tiny_config

PACED = dataclasses.replace(tiny_config(), paces_music=True)
TIMEBASE = Timebase(16000, 640)


@pytest.mark.parametrize(
    ("text", "bpm"),
    [
        ("A slow waltz at 92 BPM.", 92),
        ("around 120 beats per minute", 120),
        ("a 174-bpm drum loop", 174),
        ("roughly 97.5 BPM", 97.5),
        ("120 drums", None),
        ("from 90 BPM to 120 BPM", None),
        ("a fast piece", None),
    ],
)
def test_tempo(text: str, bpm: float | None) -> None:
    assert requested_tempo_bpm(text) == bpm


def test_a_beat_is_twelve_positions_at_every_tempo() -> None:
    for bpm in (60, 125, 180):
        rate = position_rate(Prompt(description=f"Techno at {bpm} BPM."), PACED, TIMEBASE)
        assert rate * TIMEBASE.frame_rate * 60 / bpm == pytest.approx(12)


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt(description="Slow techno."),
        Prompt(description="From 90 BPM to 120 BPM."),
        Prompt(description="At 999 BPM."),
        Prompt(description="A song at 90 BPM.", transcript="la", is_singing=True),
    ],
)
def test_frames_are_one_position_apart_without_one_tempo(prompt: Prompt) -> None:
    assert position_rate(prompt, PACED, TIMEBASE) == 1.0


def test_frames_are_one_position_apart_where_the_model_does_not_pace_music() -> None:
    assert position_rate(Prompt(description="At 90 BPM."), tiny_config(), TIMEBASE) == 1.0
