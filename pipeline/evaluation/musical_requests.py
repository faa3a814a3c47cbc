"""Key and family of the first instrument that a description of music names, and its tempo."""

from __future__ import annotations

import re

TEMPO_TOLERANCE = 0.05
"""A tempo within this share of the requested one is right."""
_KEY = re.compile(
    r"\b([A-G])(?:[- ]?(flat|sharp)\b|([#♯b♭]))?[- ]([Mm]ajor|[Mm]inor)\b"
    r"(?! (?:key|feel|mood|chord|scale|mode))"
)
_SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_ACCIDENTALS = {"flat": -1, "sharp": 1, "b": -1, "♭": -1, "#": 1, "♯": 1}

FAMILIES: dict[str, tuple[str, ...]] = {
    "keyboard": (
        "piano", "pianos", "harpsichord", "clavichord", "keyboard", "keyboards", "celesta",
        "organ", "accordion", "melodica", "harmonium", "rhodes",
    ),
    "bells": (
        "bell", "bells", "glockenspiel", "vibraphone", "marimba", "xylophone", "kalimba",
        "music box", "steelpan", "chimes",
    ),
    "plucked strings": (
        "guitar", "guitars", "banjo", "ukulele", "mandolin", "lute", "harp", "zither", "sitar",
        "koto", "oud", "balalaika", "dulcimer",
    ),
    "bowed strings": (
        "violin", "violins", "viola", "cello", "cellos", "fiddle", "strings", "string section",
        "string quartet", "orchestra",
    ),
    "wind": (
        "flute", "flutes", "piccolo", "recorder", "oboe", "clarinet", "bassoon", "saxophone",
        "saxophones", "sax", "whistle", "panpipes", "woodwinds", "woodwind", "trumpet", "trumpets",
        "trombone", "trombones", "tuba", "horn", "horns", "brass", "bagpipes", "harmonica",
        "shakuhachi", "didgeridoo",
    ),
    "synthesizer": (
        "synth", "synths", "synthesizer", "synthesizers", "synthesiser", "pad", "pads", "theremin",
        "arpeggio", "square lead", "saw lead", "pulse lead", "string pad",
    ),
    "bass": ("bass", "bassline", "bass guitar", "double bass", "synth bass"),
    "percussion": (
        "drum", "drums", "drum kit", "percussion", "snare", "kick", "hi-hat", "cymbal", "cymbals",
        "bongo", "bongos", "conga", "congas", "tabla", "timpani", "tambourine", "shaker", "cowbell",
        "djembe", "beat", "beats", "claps", "clap",
    ),
    "voice": (
        "vocal", "vocals", "voice", "voices", "singer", "singers", "vocalist", "choir", "singing",
    ),
}  # fmt: skip
"""Families of instruments, and the words that name them; the longest name that fits counts."""
_FAMILY_OF = {name: family for family, names in FAMILIES.items() for name in names}
_INSTRUMENT = re.compile(
    r"\b(?:" + "|".join(sorted(map(re.escape, _FAMILY_OF), key=len, reverse=True)) + r")\b",
    re.IGNORECASE,
)


def requested_key(description: str) -> int | None:
    """Key that a description names, as an index of `KEY_NAMES`; None if it names none, or
    several."""
    found = {
        (_SEMITONES[name.upper()] + _ACCIDENTALS.get((word or sign).lower(), 0)) % 12
        + (12 if mode.lower() == "minor" else 0)
        for name, word, sign, mode in _KEY.findall(description)
    }
    return found.pop() if len(found) == 1 else None


def requested_family(description: str) -> str | None:
    """Family of the instrument that a description names first; None if it names none."""
    found = _INSTRUMENT.search(description)
    return None if found is None else _FAMILY_OF[found[0].lower()]


def is_tempo_right(measured_bpm: float | None, requested_bpm: float) -> bool:
    """Whether a measured tempo is within 5 % of the requested one; half and double are wrong."""
    if measured_bpm is None:
        return False
    return abs(measured_bpm - requested_bpm) <= TEMPO_TOLERANCE * requested_bpm


def is_tempo_right_or_octave(measured_bpm: float | None, requested_bpm: float) -> bool:
    """Whether a measured tempo is within 5 % of the requested one, its half or its double.

    Listeners differ in what they count as a beat.
    """
    return any(is_tempo_right(measured_bpm, requested_bpm * by) for by in (0.5, 1.0, 2.0))
