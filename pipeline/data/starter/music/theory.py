"""Keys, scales and chords as MIDI note numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass

TONICS = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")
"""Names of the twelve tonics from C."""

SCALES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "major pentatonic": (0, 2, 4, 7, 9),
    "minor pentatonic": (0, 3, 5, 7, 10),
    "blues": (0, 3, 5, 6, 7, 10),
}
"""Semitones above the tonic."""

_DEGREES = {"I": 0, "II": 2, "III": 4, "IV": 5, "V": 7, "VI": 9, "VII": 11}
_NUMERAL = re.compile(r"(b?)([IV]+|[iv]+)(maj7|7|sus2|add9|)")
_SUFFIXES = {"": (), "7": (10,), "maj7": (11,), "add9": (14,), "sus2": ()}


@dataclass(frozen=True)
class Key:
    """A tonic (0 is C) and a mode, major or minor."""

    tonic: int
    mode: str

    def __str__(self) -> str:
        return f"{TONICS[self.tonic]} {self.mode}"


@dataclass(frozen=True)
class Chord:
    """A chord as pitch classes, root first."""

    pitches: tuple[int, ...]

    @property
    def root(self) -> int:
        """Pitch class of the root."""
        return self.pitches[0]


def chord(numeral: str, key: Key) -> Chord:
    """A chord by roman numeral, degrees counted on the major scale of the tonic.

    Upper case is major, lower case minor; `b` lowers the root; `7`, `maj7`, `add9` add a note and
    `sus2` replaces the third.

    Raises:
        ValueError: If it is not such a numeral.
    """
    found = _NUMERAL.fullmatch(numeral)
    if not found or found[2].upper() not in _DEGREES:
        raise ValueError(f"{numeral!r} is not a roman numeral like I, vi, bVII or V7")
    root = _DEGREES[found[2].upper()] - len(found[1])
    third = 2 if found[3] == "sus2" else 4 if found[2].isupper() else 3
    steps = (0, third, 7, *_SUFFIXES[found[3]])
    return Chord(tuple((key.tonic + root + step) % 12 for step in steps))


def voicing(wanted: Chord, centre: int) -> list[int]:
    """The chord's notes in close position around a note, so that neighbours lead smoothly."""
    return sorted(nearest(pitch, centre) for pitch in wanted.pitches)


def nearest(pitch_class: int, note: int) -> int:
    """The note of a pitch class nearest to another note."""
    return note + (pitch_class - note + 6) % 12 - 6


def scale_notes(key: Key, scale: str, low: int, high: int) -> list[int]:
    """All notes of a scale on the key's tonic from low to high."""
    steps = {(key.tonic + step) % 12 for step in SCALES[scale]}
    return [note for note in range(low, high + 1) if note % 12 in steps]


def frequency(note: float) -> float:
    """Hz of a MIDI note number; 69 is 440 Hz."""
    return float(440.0 * 2 ** ((note - 69) / 12))
