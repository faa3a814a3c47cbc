"""Played pieces are as long, as fast and in the key that their labels say."""

from __future__ import annotations

import re

import numpy as np
import pytest

from model.tempo import requested_tempo_bpm
from pipeline.acoustics.attributes import measure
from pipeline.data.starter import dsp
from pipeline.data.starter.music.piece import Piece, PiecePlan, plan_pieces, render_piece
from pipeline.data.starter.music.styles import STYLES, SYNONYMS
from pipeline.data.starter.music.theory import SCALES, TONICS
from pipeline.data.starter.settings import MusicSettings, StarterSettings

_SETTINGS = StarterSettings(minutes=12)


def _piece(style: str, duration_s: float = 6.0, index: int = 0) -> Piece:
    return render_piece(_SETTINGS, PiecePlan(index, style, duration_s))


@pytest.mark.parametrize("style", STYLES)
def test_a_piece_is_whole_and_labelled(style: str) -> None:
    piece = _piece(style, 5.25)
    assert piece.wave.shape == (2, dsp.samples(5.25))
    assert np.isfinite(piece.wave).all()
    assert 0.15 < np.abs(piece.wave).max() < 0.95
    labels = piece.labels
    assert list(labels) == [
        "title",
        "captions",
        "style",
        "mood",
        "instruments",
        "tempo_bpm",
        "key",
        "form",
        "duration_s",
        "license",
    ]
    assert labels["style"] == style
    assert labels["duration_s"] == 5.25
    assert labels["license"] == "CC0-1.0"
    full, short, *asked = labels["captions"]
    assert len(set(asked)) == 8
    lead = labels["instruments"][0]
    leads = (lead, *SYNONYMS["instruments"][lead])
    names = {name.lower() for name in (*leads, style, *STYLES[style].synonyms)}
    for wording in asked:
        assert any(name in wording.lower() for name in names)
        assert requested_tempo_bpm(wording) in (None, labels["tempo_bpm"])
    for caption in (full, short):
        assert style in caption.lower()
        assert str(labels["tempo_bpm"]) in caption
        assert labels["instruments"][0] in caption.lower()
        assert caption[0].isupper()
        assert caption.endswith(".")
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", caption.lower())
    assert all(name in full.lower() for name in labels["instruments"])
    assert labels["mood"] in full.lower()
    assert labels["key"] in full


def _tempo_salience(wave: dsp.Wave, beat_s: float) -> float:
    """Autocorrelation of the onset strength at a lag, relative to lag zero."""
    hop = 441
    mono = wave.mean(axis=0)
    frames = np.lib.stride_tricks.sliding_window_view(mono, 1024)[::hop] * np.hanning(1024)
    level = np.log(np.abs(np.fft.rfft(frames)) + 1e-3)
    flux = np.maximum(np.diff(level, axis=0), 0).sum(axis=1)
    flux -= flux.mean()
    correlation = np.correlate(flux, flux, "full")[len(flux) - 1 :]
    lag = round(beat_s * dsp.SAMPLE_RATE / hop)
    return float(correlation[lag - 1 : lag + 2].max() / correlation[0])


@pytest.mark.parametrize("style", ["techno", "chiptune", "lo-fi hip-hop", "march"])
def test_the_beat_is_where_the_tempo_says(style: str) -> None:
    piece = _piece(style, 8.0)
    beat_s = 60 / piece.labels["tempo_bpm"]
    at_beat = _tempo_salience(piece.wave, 2 * beat_s)
    off_beat = max(_tempo_salience(piece.wave, 2 * beat_s * ratio) for ratio in (0.93, 1.07))
    assert at_beat > 0.15
    assert at_beat > off_beat + 0.1


@pytest.mark.parametrize("style", ["waltz", "folk ballad", "baroque", "march"])
def test_the_sound_lies_in_the_key(style: str) -> None:
    piece = _piece(style, 8.0)
    tonic, mode = piece.labels["key"].rsplit(" ", 1)
    spectrum = np.abs(np.fft.rfft(piece.wave.mean(axis=0))) ** 2
    bins = np.fft.rfftfreq(piece.wave.shape[1], 1 / dsp.SAMPLE_RATE)
    tonal = (bins > 60) & (bins < 1000)
    classes = np.round(69 + 12 * np.log2(bins[tonal] / 440)).astype(int) % 12
    chroma = np.bincount(classes, spectrum[tonal], 12)
    steps = (*SCALES[mode], 11) if mode == "minor" else SCALES[mode]  # with the leading note
    scale = [(TONICS.index(tonic) + step) % 12 for step in steps]
    assert chroma[scale].sum() > 0.85 * chroma.sum()


def test_plans_fill_the_time_with_all_styles_in_turn() -> None:
    plans = plan_pieces(_SETTINGS)
    assert sum(plan.duration_s for plan in plans) == pytest.approx(216, rel=0.01)
    for start in range(0, len(plans) - len(STYLES), len(STYLES)):
        assert {plan.style for plan in plans[start : start + len(STYLES)]} == set(STYLES)


def test_only_the_styles_of_the_settings_are_planned() -> None:
    music = MusicSettings(styles=("march", "techno"))
    plans = plan_pieces(StarterSettings(minutes=12, music=music))
    assert {plan.style for plan in plans} == {"march", "techno"}


@pytest.mark.parametrize("style", ["techno", "march", "blues", "baroque", "lo-fi hip-hop"])
def test_the_measured_tempo_is_that_of_the_labels(style: str) -> None:
    piece = _piece(style, 8.0, index=2)
    found = measure(piece.wave.astype(np.float32), dsp.SAMPLE_RATE, "music")["tempo_bpm"]
    assert found == pytest.approx(piece.labels["tempo_bpm"], rel=0.05)


def test_a_piece_depends_on_seed_and_place_only() -> None:
    first = _piece("chiptune", 4.0)
    again = render_piece(StarterSettings(minutes=1), PiecePlan(0, "chiptune", 4.0))
    other = _piece("chiptune", 4.0, index=1)
    assert (first.wave == again.wave).all()
    assert first.labels == again.labels
    assert first.labels != other.labels
