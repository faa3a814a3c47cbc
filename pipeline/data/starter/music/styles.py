"""Styles of music: tempo, meter, harmony, rhythm, instruments, mood; see `styles.yaml`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pipeline.data.word_files import read_words


@dataclass(frozen=True, kw_only=True)
class Style:
    """A style of music as the composer needs it.

    Attributes:
        name: Label.
        synonyms: What people call it besides.
        tempo_bpm: Slowest and fastest.
        beats: Beats a bar.
        progressions: Roman numerals, one a bar, by mode; repeated as needed.
        scales: Scale of the melody by mode.
        melody: Rhythms to choose from.
        chords: Rhythms of the accompaniment to choose from.
        bass: Rhythms of the bass to choose from.
        drums: Rhythm of each drum; empty for none.
        lead: Instruments of the melody to choose from.
        accompaniment: Instruments of the chords to choose from.
        low: Instruments of the bass to choose from.
        moods: Adjectives by mode.
        swing: Delay of every second half-beat, in beats.
        sections: Names of intro, body, second body, ending.
        lead_low: Lowest note of the melody.
        room: Reverberation, 0 to 1.
    """

    name: str
    synonyms: tuple[str, ...]
    tempo_bpm: tuple[int, int]
    progressions: dict[str, tuple[tuple[str, ...], ...]]
    scales: dict[str, str]
    melody: tuple[str, ...]
    chords: tuple[str, ...]
    bass: tuple[str, ...]
    lead: tuple[str, ...]
    accompaniment: tuple[str, ...]
    low: tuple[str, ...]
    moods: dict[str, tuple[str, ...]]
    drums: dict[str, str] = field(default_factory=dict)
    beats: int = 4
    swing: float = 0.0
    sections: tuple[str, str, str, str] = ("intro", "verse", "chorus", "ending")
    lead_low: int = 64
    room: float = 0.2


STYLES = {
    name: Style(name=name, **words)
    for name, words in read_words(Path(__file__).with_suffix(".yaml")).items()
}
"""Every style by name."""
SYNONYMS = read_words(Path(__file__).with_name("synonyms.yaml"))
"""Other words for every mood (`moods`) and every leading instrument (`instruments`)."""
