"""Styles of music: tempo, meter, harmony, rhythm, instruments, mood.

Rhythms are one bar long, four steps a beat: a symbol starts a note, `-` holds it, `.` is silence.
In `bass`, R 3 5 8 are root, third, fifth and octave; in `chords`, x is the whole chord and a digit
one of its notes from below; in `drums` and `melody`, x is a note.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Style:
    """A style of music as the composer needs it.

    Attributes:
        name: Label.
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


_MAJOR_MINOR = {"major": "major", "minor": "minor"}

AMBIENT = Style(
    name="ambient",
    tempo_bpm=(56, 76),
    progressions={
        "major": (("Imaj7", "IVmaj7"), ("Iadd9", "vi7"), ("IVmaj7", "Isus2")),
        "minor": (("i7", "bVImaj7"), ("iadd9", "iv7"), ("i7", "bVIImaj7")),
    },
    scales={"major": "major pentatonic", "minor": "minor pentatonic"},
    melody=("....x-------....", "x-------....x---", "........x-------"),
    chords=("x---------------",),
    bass=("R---------------",),
    lead=("bells", "flute", "electric piano"),
    accompaniment=("synth pad", "string pad"),
    low=("sub bass",),
    moods={"major": ("calm", "dreamy"), "minor": ("mysterious", "melancholic")},
    sections=("fade-in", "drift", "bloom", "fade-out"),
    room=0.55,
)

TECHNO = Style(
    name="techno",
    tempo_bpm=(124, 138),
    progressions={"minor": (("i",), ("i", "i", "bVI", "bVII"), ("i", "i", "iv", "i"))},
    scales={"minor": "minor pentatonic"},
    melody=("x.x..x.x..x.x...", "..x..x..x..x.x..", "x..x..x.x..x..x."),
    chords=("..x-..x-..x-..x-", "...x-..x-...x-..", "x..x..x.x..x..x."),
    bass=("..R...R...R...R.", ".RR8.RR8.RR8.RR8", "..RR..RR..R8..RR"),
    drums={
        "kick": "x...x...x...x...",
        "hi-hat": "x.x.x.x.x.x.x.x.",
        "open hi-hat": "..x...x...x...x.",
        "clap": "....x.......x...",
    },
    lead=("synth lead", "pulse lead"),
    accompaniment=("synth stab",),
    low=("synth bass",),
    moods={"minor": ("driving", "hypnotic", "energetic")},
    sections=("build-up", "groove", "drop", "outro"),
    room=0.15,
)

WALTZ = Style(
    name="waltz",
    tempo_bpm=(132, 176),
    beats=3,
    progressions={
        "major": (("I", "V7", "V7", "I"), ("I", "vi", "ii", "V7"), ("I", "IV", "V7", "I")),
        "minor": (("i", "V7", "V7", "i"), ("i", "iv", "V7", "i")),
    },
    scales=_MAJOR_MINOR,
    melody=("x-------x---", "x---x---x---", "x-----x-x-x-", "x-----------"),
    chords=("....x--.x--.",),
    bass=("R---........", "5---........"),
    lead=("accordion", "violin", "flute"),
    accompaniment=("accordion", "piano", "string section"),
    low=("double bass", "tuba"),
    moods={"major": ("elegant", "cheerful"), "minor": ("wistful", "nostalgic")},
    sections=("introduction", "first theme", "second theme", "coda"),
    room=0.3,
)

BLUES = Style(
    name="blues",
    tempo_bpm=(84, 126),
    progressions={
        "major": (
            ("I7", "IV7", "I7", "I7", "IV7", "IV7", "I7", "I7", "V7", "IV7", "I7", "V7"),
            ("I7", "IV7", "I7", "V7"),
        ),
    },
    scales={"major": "blues"},
    melody=("x-x-x---....x-x-", "..x-x-x-x-------", "x---x-x-x-......", "....x-x-x---x---"),
    chords=("....x-......x-..", "x-....x-x-....x-"),
    bass=("R---3---5---8---", "R---3---5---3---", "R---R---5---8---"),
    drums={
        "kick": "x.......x.......",
        "snare": "....x.......x...",
        "ride cymbal": "x...x.x.x...x.x.",
    },
    lead=("electric guitar", "harmonica", "saxophone"),
    accompaniment=("organ", "piano"),
    low=("bass guitar",),
    moods={"major": ("soulful", "gritty", "laid-back")},
    swing=1 / 6,
    sections=("intro", "verse", "solo", "turnaround"),
    lead_low=60,
)

FOLK = Style(
    name="folk ballad",
    tempo_bpm=(72, 104),
    progressions={
        "major": (("I", "V", "vi", "IV"), ("I", "IV", "I", "V"), ("I", "iii", "IV", "V")),
        "minor": (("i", "bVII", "bVI", "bVII"), ("i", "iv", "bVII", "i")),
    },
    scales=_MAJOR_MINOR,
    melody=("x---x-x-x---x---", "x-----x-x-------", "x-x-x---x-----x-", "x---x---x-x-x---"),
    chords=("0-1-2-1-0-1-2-1-", "0-2-1-2-3-2-1-2-", "x---x-x-x---x-x-"),
    bass=("R-------5-------", "R-----------5---"),
    lead=("flute", "violin", "whistle"),
    accompaniment=("acoustic guitar",),
    low=("double bass",),
    moods={"major": ("gentle", "warm"), "minor": ("sad", "wistful")},
    room=0.25,
)

CHIPTUNE = Style(
    name="chiptune",
    tempo_bpm=(130, 172),
    progressions={
        "major": (("I", "V", "vi", "IV"), ("I", "IV", "V", "I")),
        "minor": (("i", "bVI", "bVII", "i"), ("i", "bVII", "bVI", "V")),
    },
    scales=_MAJOR_MINOR,
    melody=("x-x-x-x-x---x-x-", "x-xxx-x-x-xxx---", "x---x-x-xxx-x-x-", "x-x-..x-x-x-..x-"),
    chords=("0120120120120120", "0123012301230123"),
    bass=("R.R.8.R.R.R.8.R.", "R---R.R.8---R.R."),
    drums={
        "noise kick": "x.......x.x.....",
        "noise snare": "....x.......x...",
        "noise hat": "x.x.x.x.x.x.x.xx",
    },
    lead=("square lead",),
    accompaniment=("pulse arpeggio",),
    low=("triangle bass",),
    moods={"major": ("playful", "bright"), "minor": ("adventurous", "tense")},
    sections=("intro", "level theme", "bonus theme", "game over"),
    lead_low=69,
    room=0.0,
)

MARCH = Style(
    name="march",
    tempo_bpm=(104, 126),
    progressions={
        "major": (("I", "I", "V7", "I"), ("I", "IV", "V7", "I"), ("I", "vi", "ii", "V7"))
    },
    scales={"major": "major"},
    melody=("x--xx---x--xx---", "x---x---x-x-x---", "x-----x-x---x---", "x--xx-x-x-------"),
    chords=("..x-..x-..x-..x-",),
    bass=("R---5---R---5---",),
    drums={
        "bass drum": "x.......x.......",
        "snare drum": "x.xxx.x.x.xxx.xx",
        "cymbal": "x...............",
    },
    lead=("trumpet", "piccolo", "clarinet"),
    accompaniment=("brass section",),
    low=("tuba",),
    moods={"major": ("proud", "festive")},
    sections=("introduction", "first strain", "trio", "ending"),
    lead_low=65,
    room=0.25,
)

LOFI = Style(
    name="lo-fi hip-hop",
    tempo_bpm=(70, 90),
    progressions={
        "major": (("ii7", "V7", "Imaj7", "vi7"), ("Imaj7", "vi7", "ii7", "V7")),
        "minor": (("i7", "iv7", "bVImaj7", "V7"), ("i7", "bVII7", "bVImaj7", "i7")),
    },
    scales={"major": "major pentatonic", "minor": "minor pentatonic"},
    melody=("....x-x---x-....", "x---..x-x-------", "..x-x---....x-x-"),
    chords=("x-----x-......x-", "x-------..x---..", "x---x-....x-x---"),
    bass=("R-----R-..5---..", "R---..R-....R-5-"),
    drums={
        "kick": "x......x..x.....",
        "snare": "....x.......x...",
        "hi-hat": "x.x.x.x.x.x.x.x.",
    },
    lead=("vibraphone", "muted guitar", "flute"),
    accompaniment=("electric piano",),
    low=("sub bass", "bass guitar"),
    moods={"major": ("relaxed", "cosy"), "minor": ("melancholic", "sleepy")},
    swing=0.1,
    sections=("intro", "loop", "second loop", "outro"),
    room=0.2,
)

BAROQUE = Style(
    name="baroque",
    tempo_bpm=(88, 120),
    progressions={
        "major": (("I", "V", "vi", "iii", "IV", "I", "IV", "V7"), ("I", "ii", "V7", "I")),
        "minor": (("i", "V7", "i", "bVII", "bIII", "bVII", "i", "V7"), ("i", "iv", "V7", "i")),
    },
    scales=_MAJOR_MINOR,
    melody=("x-xxx-x-x-xxx-x-", "x---x-x-x-x-x-x-", "xxxxx-x-x---x---", "x-x-x-x-x-------"),
    chords=("0---1---2---1---", "x-------x-------"),
    bass=("R---3---5---3---", "R-------5-------"),
    lead=("harpsichord", "recorder", "violin"),
    accompaniment=("harpsichord", "organ"),
    low=("cello",),
    moods={"major": ("graceful", "bright"), "minor": ("solemn", "stately")},
    sections=("opening", "subject", "answer", "cadence"),
    room=0.35,
)

REGGAE = Style(
    name="reggae",
    tempo_bpm=(70, 88),
    progressions={
        "major": (("I", "IV"), ("I", "V", "ii", "IV"), ("I", "vi", "IV", "V")),
        "minor": (("i", "iv"), ("i", "bVII", "bVI", "bVII")),
    },
    scales={"major": "major pentatonic", "minor": "minor pentatonic"},
    melody=("..x-x---x-x-....", "x---..x-x---....", "....x-x-x---x-x-"),
    chords=("....x.......x...", "..x...x...x...x."),
    bass=("R---..R-5---3---", "....R-R-..5-8---"),
    drums={
        "kick": "........x.......",
        "side stick": "........x.......",
        "hi-hat": "x.x.x.x.x.x.x.x.",
    },
    lead=("organ", "trumpet", "melodica"),
    accompaniment=("muted guitar", "piano"),
    low=("bass guitar",),
    moods={"major": ("sunny", "relaxed"), "minor": ("mellow", "deep")},
    swing=0.08,
    room=0.3,
)

STYLES = {
    style.name: style
    for style in (
        AMBIENT,
        TECHNO,
        WALTZ,
        BLUES,
        FOLK,
        CHIPTUNE,
        MARCH,
        LOFI,
        BAROQUE,
        REGGAE,
    )
}
"""Every style by name."""
