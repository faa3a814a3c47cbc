"""Scores keep to their grid, key, form and duration."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.starter.music.composer import ROLES, STEPS_PER_BEAT, Score, compose, form
from pipeline.data.starter.music.styles import STYLES
from pipeline.data.starter.music.theory import SCALES


def _scores(name: str) -> list[Score]:
    return [
        compose(STYLES[name], duration_s, np.random.default_rng(seed))
        for seed, duration_s in enumerate((4.0, 5.3, 8.0, 9.9, 12.0))
    ]


def _num_bars(score: Score) -> int:
    return sum(section.bars for section in score.sections)


@pytest.mark.parametrize("name", STYLES)
def test_bars_fill_the_duration_at_a_tempo_of_the_style(name: str) -> None:
    for score, duration_s in zip(_scores(name), (4.0, 5.3, 8.0, 9.9, 12.0), strict=True):
        low, high = score.style.tempo_bpm
        assert low <= score.tempo_bpm <= high
        body_s = _num_bars(score) * score.style.beats * 60 / score.tempo_bpm
        assert 0.5 <= duration_s - body_s <= 3.5
        last = max(note.start_beats for note in score.notes)
        assert last < _num_bars(score) * score.style.beats


@pytest.mark.parametrize("name", STYLES)
def test_notes_begin_on_the_grid(name: str) -> None:
    for score in _scores(name):
        swing = score.style.swing
        for note in score.notes:
            plain = note.start_beats * STEPS_PER_BEAT
            late = (note.start_beats - swing) * STEPS_PER_BEAT
            assert min(abs(plain - round(plain)), abs(late - round(late))) < 1e-9
            assert note.length_beats > 0
            assert 0 < note.velocity <= 1


@pytest.mark.parametrize("name", STYLES)
def test_melodies_stay_in_their_scale(name: str) -> None:
    for score in _scores(name):
        steps = SCALES[score.style.scales[score.key.mode]]
        allowed = {(score.key.tonic + step) % 12 for step in (*steps, 0)}
        melody = [note.pitch for note in score.notes if note.role == "melody"]
        assert melody
        assert {pitch % 12 for pitch in melody[:-1]} <= allowed


@pytest.mark.parametrize("name", STYLES)
def test_every_role_is_played_by_an_instrument_of_its_own(name: str) -> None:
    for score in _scores(name):
        assert {note.role for note in score.notes} == set(score.instruments)
        assert set(score.instruments) <= set(ROLES)
        assert ("drums" in score.instruments) == bool(score.style.drums)
        assert len(set(score.instruments.values())) == len(score.instruments)


@pytest.mark.parametrize("num_bars", [1, 2, 3, 4, 5, 6, 9, 16])
def test_the_form_has_as_many_bars_as_there_are(num_bars: int) -> None:
    for seed in range(4):
        sections = form(STYLES["techno"], num_bars, np.random.default_rng(seed))
        assert sum(section.bars for section in sections) == num_bars
        assert all(section.bars >= 1 for section in sections)
        if num_bars >= 6:
            assert len(sections) == 4


def test_an_introduction_has_no_melody_and_an_ending_rests() -> None:
    score = compose(STYLES["techno"], 16.0, np.random.default_rng(0))
    beats = score.style.beats
    melody = [note.start_beats for note in score.notes if note.role == "melody"]
    assert min(melody) >= beats
    last_bar = [n for n in score.notes if n.start_beats >= (_num_bars(score) - 1) * beats]
    assert {note.start_beats for note in last_bar} == {(_num_bars(score) - 1) * beats}


def test_the_same_generator_state_gives_the_same_score() -> None:
    first, second = (compose(STYLES["blues"], 8.0, np.random.default_rng(4)) for _ in range(2))
    assert first == second
