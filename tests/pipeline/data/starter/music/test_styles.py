"""Every style is playable: bars are full, chords parse, instruments and drums exist."""

from __future__ import annotations

import pytest

from pipeline.data.starter.music.composer import STEPS_PER_BEAT
from pipeline.data.starter.music.drums import hit
from pipeline.data.starter.music.instruments import INSTRUMENTS
from pipeline.data.starter.music.styles import STYLES, SYNONYMS, Style
from pipeline.data.starter.music.theory import SCALES, Key, chord


def test_there_are_enough_styles() -> None:
    assert len(STYLES) >= 8
    assert {"ambient", "techno", "waltz", "blues", "chiptune", "march"} <= set(STYLES)


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
def test_a_style_is_playable(style: Style) -> None:
    patterns = (*style.melody, *style.chords, *style.bass, *style.drums.values())
    assert {len(pattern) for pattern in patterns} == {style.beats * STEPS_PER_BEAT}
    assert all(set(pattern) <= set("R358-.") for pattern in style.bass)
    assert all(set(pattern) <= set("x0123-.") for pattern in style.chords)
    assert all(set(p) <= set("x-.") for p in (*style.melody, *style.drums.values()))
    assert set(style.progressions) == set(style.scales) == set(style.moods)
    for mode, progressions in style.progressions.items():
        assert mode in ("major", "minor")
        assert style.scales[mode] in SCALES
        assert all(chord(numeral, Key(0, mode)) for row in progressions for numeral in row)
    for name in (*style.lead, *style.accompaniment, *style.low):
        assert name in INSTRUMENTS
    for lead in style.lead:
        assert set(style.accompaniment) - {lead}, "the accompaniment needs another instrument"
    assert all(len(hit(drum)) for drum in style.drums)
    assert style.tempo_bpm[0] < style.tempo_bpm[1]


def test_synonyms_are_of_moods_and_leads() -> None:
    moods = {mood for style in STYLES.values() for known in style.moods.values() for mood in known}
    leads = {lead for style in STYLES.values() for lead in style.lead}
    assert set(SYNONYMS["moods"]) == moods
    assert set(SYNONYMS["instruments"]) == leads
