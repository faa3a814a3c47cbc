"""The audio of a score, and the labels of the piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from pipeline.data.starter import dsp
from pipeline.data.starter.dsp import Generator, Wave
from pipeline.data.starter.music import theory
from pipeline.data.starter.music.composer import Note, Score, compose
from pipeline.data.starter.music.drums import hit
from pipeline.data.starter.music.instruments import INSTRUMENTS
from pipeline.data.starter.music.styles import STYLES, SYNONYMS
from pipeline.data.starter.requests import as_requests
from pipeline.data.starter.settings import StarterSettings, clip_durations, generator

LEVELS = {"melody": 0.75, "chords": 0.34, "bass": 0.62, "drums": 0.7}
"""Gain of each role in the mix."""
_REFERENCE_PITCH = {"melody": 70, "chords": 60, "bass": 40}
_ADJECTIVES = "Amber Quiet Paper Northern Silver Second Winding Distant Early Hollow Copper Blue"
_NOUNS = "River Window Lantern Parade Orchard Signal Harbour Staircase Meadow Engine Tide"
_NUM_WORDINGS = 8
_PANS = {"melody": 0.15, "chords": -0.25, "bass": 0.0, "drums": 0.05}
_PAN_BY_DRUM = {"hi-hat": 0.35, "open hi-hat": 0.35, "ride cymbal": -0.4, "cymbal": -0.3}


@dataclass(frozen=True)
class Piece:
    """A finished clip: `channels samples`, and labels that are true of it."""

    wave: Wave
    labels: dict[str, Any]


@dataclass(frozen=True)
class PiecePlan:
    """A piece to be composed."""

    index: int
    style: str
    duration_s: float


def plan_pieces(settings: StarterSettings) -> list[PiecePlan]:
    """All pieces of the corpus; every style of the settings in turn, in shuffled rounds."""
    rng = generator(settings, "pieces")
    durations = clip_durations(
        settings.budget_s("music"), settings.music.min_s, settings.music.max_s, rng
    )
    deck: list[str] = []
    plans = []
    for index, duration_s in enumerate(durations):
        if not deck:
            styles = settings.music.styles
            deck = [styles[place] for place in rng.permutation(len(styles))]
        plans.append(PiecePlan(index, deck.pop(), duration_s))
    return plans


def render_piece(settings: StarterSettings, plan: PiecePlan) -> Piece:
    """Compose and play one planned piece; depends on nothing but settings' seed and plan."""
    rng = generator(settings, "music", plan.index)
    score = compose(STYLES[plan.style], plan.duration_s, rng)
    wave = play(score, plan.duration_s, rng)
    return Piece(wave, describe(score, plan.duration_s, rng))


def play(score: Score, duration_s: float, rng: Generator) -> Wave:
    """The score as stereo at `dsp.SAMPLE_RATE`, of exactly the requested duration."""
    count = dsp.samples(duration_s)
    beat_s = 60 / score.tempo_bpm
    mixes = {place: np.zeros(count) for place in {*_PANS.values(), *_PAN_BY_DRUM.values()}}
    for note in score.notes:
        place = _PAN_BY_DRUM.get(note.drum, _PANS[note.role])
        gain = LEVELS[note.role] * note.velocity
        dsp.add(mixes[place], _sound(score, note, beat_s), note.start_beats * beat_s, gain)
    stereo = np.zeros((2, count))
    for place, mix in mixes.items():
        stereo += dsp.pan(mix, place)
    room = score.style.room
    if room:
        stereo = np.stack([dsp.room(side, rng, 0.6 + 2.5 * room, room) for side in stereo])
    stereo = dsp.to_level(stereo, float(rng.uniform(-20, -14)), peak_dbfs=4.0)
    stereo = np.tanh(stereo) * 0.9  # soft limiting, as a mastered piece has
    return np.stack([dsp.fade(side, 0.005, 0.4) for side in stereo])


def _sound(score: Score, note: Note, beat_s: float) -> Wave:
    if note.drum:
        return hit(note.drum)
    instrument = score.instruments[note.role]
    held = round(note.length_beats * beat_s, 4)
    return _gain(instrument, _REFERENCE_PITCH[note.role]) * _tone(instrument, note.pitch, held)


@lru_cache(maxsize=128)
def _gain(instrument: str, pitch: int) -> float:
    """Brings instruments to one loudness; short ones are held back by their peak."""
    tone = INSTRUMENTS[instrument](theory.frequency(pitch), 0.5)
    return min(0.3 / dsp.rms(tone), 1.6 / float(np.abs(tone).max()))


@lru_cache(maxsize=256)
def _tone(instrument: str, pitch: int, held_s: float) -> Wave:
    return INSTRUMENTS[instrument](theory.frequency(pitch), held_s)


def describe(score: Score, duration_s: float, rng: Generator) -> dict[str, Any]:
    """Labels of a score: title, captions, style, instruments, tempo, key, form, mood."""
    played = [
        score.instruments[role]
        for role in ("melody", "chords", "bass", "drums")
        if role in score.instruments
    ]
    instruments = list(dict.fromkeys(played))
    sections = [
        f"{section.name} ({section.bars} bar{'s' if section.bars > 1 else ''})"
        for section in score.sections
    ]
    return {
        "title": title(rng),
        "captions": [*_captions(score, instruments, rng), *_wordings(score, rng)],
        "style": score.style.name,
        "mood": score.mood,
        "instruments": instruments,
        "tempo_bpm": score.tempo_bpm,
        "key": str(score.key),
        "form": ", ".join(sections),
        "duration_s": duration_s,
        "license": "CC0-1.0",
    }


def title(rng: Generator) -> str:
    """A title in two words and a place in a series."""
    first, last = _ADJECTIVES.split(), _NOUNS.split()
    pair = (first[int(rng.integers(len(first)))], last[int(rng.integers(len(last)))])
    return f"{pair[0]} {pair[1]} No. {int(rng.integers(1, 30))}"


def _captions(score: Score, instruments: Sequence[str], rng: Generator) -> tuple[str, str]:
    """Two captions: all that is known, and the style, the lead and the tempo in few words."""
    pace = "slow" if score.tempo_bpm < 80 else "fast" if score.tempo_bpm >= 120 else "mid-tempo"
    band = f"{', '.join(instruments[:-1])} and {instruments[-1]}"
    style, mood, key, bpm = score.style.name, score.mood, score.key, score.tempo_bpm
    lead = score.instruments["melody"]
    full = (
        f"{_article(mood)} {style} piece in {key} with {band}, at {bpm} BPM",
        f"{_article(pace)} {style} track for {band} at {bpm} BPM; {mood}, in {key}",
        f"{_article(mood)}, {pace} {style} tune in {key} played by {band}, {bpm} BPM",
        f"{lead} leads {_article(mood)} {style} piece in {key} at {bpm} BPM, "
        f"accompanied by {', '.join(instruments[1:-1])} and {instruments[-1]}",
    )
    short = (
        f"{style} with {lead}, {bpm} BPM",
        f"{_article(pace)} {style} piece led by {lead}, {bpm} beats per minute",
        f"{lead} plays {style} in {key}, {bpm} BPM",
        f"{mood} {style}, {lead}, {bpm} BPM, {key}",
    )
    first, second = full[int(rng.integers(len(full)))], short[int(rng.integers(len(short)))]
    return f"{_upper(first)}.", f"{_upper(second)}."


def _wordings(score: Score, rng: Generator) -> list[str]:
    """What people type who want such a piece, as sentences."""
    lead, mood, bpm = score.instruments["melody"], score.mood, score.tempo_bpm
    names = (score.style.name, score.style.name, *score.style.synonyms)
    forms = (
        "{style} music",
        "{style} music with {lead}",
        "{lead} playing {style}",
        "{style} at {bpm} bpm",
        "{style} with {lead} at {bpm} bpm",
        "{lead} music",
        "{style} led by {lead}",
        "music with {lead}",
        "{mood} {style} music",
        "{mood} music with {lead}",
        "{mood} {lead} music at {bpm} bpm",
        "{mood} {style} with {lead}, {bpm} bpm",
    )
    texts = [
        forms[place].format(
            style=_drawn(rng, names),
            lead=_drawn(rng, (lead, *SYNONYMS["instruments"][lead])),
            mood=_drawn(rng, (mood, *SYNONYMS["moods"][mood])),
            bpm=bpm,
        )
        for place in rng.permutation(len(forms))[:_NUM_WORDINGS]
    ]
    return as_requests(rng, texts, "music")


def _drawn(rng: Generator, words: Sequence[str]) -> str:
    return words[int(rng.integers(len(words)))]


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _upper(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"
