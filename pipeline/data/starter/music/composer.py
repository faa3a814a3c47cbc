"""Composing: form, harmony, bass, accompaniment, melody and drums as notes in beats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from pipeline.data.starter.dsp import Generator
from pipeline.data.starter.music import theory
from pipeline.data.starter.music.styles import Style
from pipeline.data.starter.music.theory import Chord, Key

ItemT = TypeVar("ItemT")

STEPS_PER_BEAT = 4
"""Steps of the rhythm patterns in a beat."""
ROLES = ("melody", "chords", "bass", "drums")
"""Parts of a score."""


@dataclass(frozen=True)
class Note:
    """A note of a score.

    Attributes:
        role: One of `ROLES`.
        start_beats: Onset from the beginning, in beats.
        length_beats: Written length.
        pitch: MIDI note; drums have 0.
        velocity: 0 to 1.
        drum: Which drum, for drums.
    """

    role: str
    start_beats: float
    length_beats: float
    pitch: int
    velocity: float
    drum: str = ""


@dataclass(frozen=True)
class Section:
    """Some bars of the form, and what plays in them."""

    name: str
    bars: int
    roles: frozenset[str]


@dataclass(frozen=True)
class Score:
    """A composed piece.

    Attributes:
        style: Style of the piece.
        key: Tonic and mode.
        tempo_bpm: Beats a minute, whole.
        sections: The form.
        instruments: Instrument by role; drums are the kit.
        notes: All notes.
        mood: Label.
    """

    style: Style
    key: Key
    tempo_bpm: int
    sections: tuple[Section, ...]
    instruments: dict[str, str]
    notes: tuple[Note, ...]
    mood: str


def compose(style: Style, duration_s: float, rng: Generator) -> Score:
    """A piece whose bars end 0.5 to 2 s before the duration where the tempo range allows it."""
    tempo, num_bars = _tempo(style, duration_s, rng)
    mode = _pick(rng, sorted(style.progressions))
    key = Key(int(rng.integers(12)), mode)
    sections = form(style, num_bars, rng)
    instruments = {
        "melody": _pick(rng, style.lead),
        "bass": _pick(rng, style.low),
        "drums": "drums",
    }
    others = [name for name in style.accompaniment if name != instruments["melody"]]
    instruments["chords"] = _pick(rng, others)
    if not style.drums:
        del instruments["drums"]
    numerals = _pick(rng, style.progressions[mode])
    chords = [theory.chord(numerals[bar % len(numerals)], key) for bar in range(num_bars)]
    chords[-1] = theory.chord(numerals[0], key) if num_bars > 1 else chords[-1]
    notes = tuple(
        note for note in _notes(style, key, chords, sections, rng) if note.role in instruments
    )
    return Score(style, key, tempo, sections, instruments, notes, _pick(rng, style.moods[mode]))


def form(style: Style, num_bars: int, rng: Generator) -> tuple[Section, ...]:
    """Sections of a piece by its number of bars: the longer, the more there are."""
    everything = frozenset(ROLES)
    intro, body, second, ending = style.sections
    if num_bars < 3:
        return (Section(body, num_bars, everything),)
    has_intro = num_bars >= 4 or rng.random() < 0.5
    left = num_bars - has_intro
    has_ending = left >= 3
    left -= has_ending
    sections = []
    if has_intro:
        roles = {"chords", "drums"} if rng.random() < 0.5 and style.drums else {"chords", "bass"}
        sections.append(Section(intro, 1, frozenset(roles)))
    if left >= 4:
        first = left // 2
        sections.append(Section(body, first, everything))
        sections.append(Section(second, left - first, everything))
    else:
        sections.append(Section(body, left, everything))
    if has_ending:
        sections.append(Section(ending, 1, frozenset({"chords", "bass", "melody"})))
    return tuple(sections)


def _tempo(style: Style, duration_s: float, rng: Generator) -> tuple[int, int]:
    """Tempo and number of bars that leave a tail to ring in."""
    fits, fallback = [], (style.tempo_bpm[1], 1)
    for tempo in range(style.tempo_bpm[0], style.tempo_bpm[1] + 1):
        bar_s = style.beats * 60 / tempo
        bars = int((duration_s - 0.5) // bar_s)
        if bars >= 1 and duration_s - bars * bar_s <= 2.0:
            fits.append((tempo, bars))
        if bars >= fallback[1]:
            fallback = (tempo, bars)
    return fits[int(rng.integers(len(fits)))] if fits else fallback


def _notes(
    style: Style, key: Key, chords: list[Chord], sections: tuple[Section, ...], rng: Generator
) -> Iterator[Note]:
    bass = _pick(rng, style.bass)
    accompaniment = _pick(rng, style.chords)
    melody = list(_melody(style, key, chords, rng))
    bar = 0
    for number, section in enumerate(sections):
        is_last = number == len(sections) - 1 and len(sections) > 2
        for _ in range(section.bars):
            start = float(bar * style.beats)
            if is_last:
                yield from _final(style, chords[bar], start, melody[bar])
                bar += 1
                continue
            if "chords" in section.roles:
                yield from _accompany(style, accompaniment, chords[bar], start)
            if "bass" in section.roles:
                yield from _bass(style, bass, chords[bar], start)
            if "melody" in section.roles:
                yield from melody[bar]
            if "drums" in section.roles:
                yield from _drums(style, start, rng)
            bar += 1


def _final(style: Style, chord: Chord, start: float, melody: list[Note]) -> Iterator[Note]:
    """The last bar: everything comes to rest on the chord."""
    held = float(style.beats)
    for pitch in theory.voicing(chord, 60):
        yield Note("chords", start, held, pitch, 0.8)
    yield Note("bass", start, held, theory.nearest(chord.root, 38), 0.85)
    pitch = theory.nearest(chord.root, melody[0].pitch if melody else style.lead_low + 5)
    yield Note("melody", start, held, pitch, 0.8)
    if style.drums:
        for drum in list(style.drums)[:1]:
            yield Note("drums", start, 0.5, 0, 0.9, drum)


def _rhythm(pattern: str) -> Iterator[tuple[str, int, int]]:
    """Symbol, first step and number of steps of each note of a pattern."""
    for step, symbol in enumerate(pattern):
        if symbol in "-.":
            continue
        length = 1
        while step + length < len(pattern) and pattern[step + length] == "-":
            length += 1
        yield symbol, step, length


def _beat(style: Style, start: float, step: int) -> float:
    """Beat of a step, with every second half-beat late by the swing."""
    swing = style.swing if step % STEPS_PER_BEAT >= STEPS_PER_BEAT // 2 else 0.0
    return start + step / STEPS_PER_BEAT + swing


def _accompany(style: Style, pattern: str, chord: Chord, start: float) -> Iterator[Note]:
    notes = theory.voicing(chord, 60)
    notes = [*notes, notes[0] + 12]
    for symbol, step, length in _rhythm(pattern):
        wanted = notes[:-1] if symbol == "x" else [notes[int(symbol) % len(notes)]]
        for pitch in wanted:
            velocity = 0.75 if step % STEPS_PER_BEAT == 0 else 0.65
            yield Note(
                "chords", _beat(style, start, step), length / STEPS_PER_BEAT, pitch, velocity
            )


def _bass(style: Style, pattern: str, chord: Chord, start: float) -> Iterator[Note]:
    root = theory.nearest(chord.root, 38)
    third, fifth = (root + (pitch - chord.root) % 12 for pitch in chord.pitches[1:3])
    pitches = {"R": root, "3": third, "5": fifth, "8": root + 12}
    for symbol, step, length in _rhythm(pattern):
        beat = _beat(style, start, step)
        yield Note("bass", beat, length / STEPS_PER_BEAT, pitches[symbol], 0.85)


def _drums(style: Style, start: float, rng: Generator) -> Iterator[Note]:
    for drum, pattern in style.drums.items():
        for _, step, _length in _rhythm(pattern):
            accent = 1.0 if step % STEPS_PER_BEAT == 0 else 0.75
            velocity = accent * float(rng.uniform(0.88, 1.0))
            yield Note("drums", _beat(style, start, step), 0.25, 0, velocity, drum)


def _melody(style: Style, key: Key, chords: list[Chord], rng: Generator) -> Iterator[list[Note]]:
    """Bars of melody: two motifs in the order a b a c, steps in the scale, chord tones on beats."""
    scale = theory.scale_notes(key, style.scales[key.mode], style.lead_low - 3, style.lead_low + 16)
    rhythms = [_pick(rng, style.melody) for _ in range(3)]
    contours = [rng.choice((-2, -1, -1, 0, 1, 1, 2), 32) for _ in range(3)]
    place = len(scale) // 2
    for bar, chord in enumerate(chords):
        motif = (0, 1, 0, 2)[bar % 4]
        start = float(bar * style.beats)
        notes = []
        for number, (_, step, length) in enumerate(_rhythm(rhythms[motif])):
            place = int(np.clip(place + contours[motif][number], 0, len(scale) - 1))
            if step % (2 * STEPS_PER_BEAT) == 0 or length >= STEPS_PER_BEAT:
                place = _snap(scale, place, chord)
            velocity = float(rng.uniform(0.8, 1.0))
            notes.append(
                Note(
                    "melody",
                    _beat(style, start, step),
                    length / STEPS_PER_BEAT,
                    scale[place],
                    velocity,
                )
            )
        yield notes


def _snap(scale: list[int], place: int, chord: Chord) -> int:
    """The nearest place in the scale that belongs to the chord; the same if none does."""
    fitting = [index for index, note in enumerate(scale) if note % 12 in chord.pitches]
    return min(fitting, key=lambda index: abs(index - place), default=place)


def _pick(rng: Generator, items: Sequence[ItemT]) -> ItemT:
    return items[int(rng.integers(len(items)))]
