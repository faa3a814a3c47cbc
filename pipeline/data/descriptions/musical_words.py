"""Which tags of music name what plays, which a style, and which a mood: each fits elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.data.descriptions.vocabulary import noun_phrase


def _words(text: str, separator: str | None = None) -> frozenset[str]:
    return frozenset(text.split(separator))


_INSTRUMENTS = _words(
    "accordion bagpipe bagpipes balalaika banjo bass bassoon bell bells bongo bongos brass celesta "
    "cello cellos clarinet claps clavichord conga congas cowbell cymbal cymbals "
    "didgeridoo djembe drum drums dulcimer fiddle flute flutes glockenspiel guitar guitars "
    "harmonica harp harpsichord hat hats horn horns kalimba keyboard keyboards koto lute "
    "mandolin marimba melodica oboe organ oud percussion percussions piano piccolo "
    "recorder sax saxophone saxophones shaker shakers shakuhachi sitar strings synth "
    "synths synthesizer synthesizers synthesiser tabla tambourine theremin timpani "
    "trombone trombones trumpet trumpets tuba ukulele vibraphone viola violin violins "
    "woodwind woodwinds xylophone zither clapping drumming"
)
_PARTS = _words(
    "accompaniment arpeggio arpeggios bassline beat beats choir chord chords gong groove harmony "
    "harmonies hit hits kick lead line lines loop loops melody melodies pad pads pattern "
    "patterns riff riffs rhythm rhythms section snare solo solos strumming orchestra"
)
_VOICES = _words("vocal vocals voice voices singer singers vocalist vocalists singing")
_GENRES = _words(
    "acoustic|afrobeat|ambient|baroque|bluegrass|blues|bossa nova|breakbeat|celtic|chillout|"
    "choral|christmas|cinematic|classical|club|country|cumbia|dance|dancehall|disco|downtempo|"
    "drum and bass|dub|dubstep|edm|electro|electronic|electronic dance|ethnic|experimental|film|"
    "flamenco|folk|funk|fusion|garage|gospel|grunge|hard rock|heavy metal|hip hop|hip-hop|house|"
    "indie|industrial|jazz|jazz fusion|latin|lounge|marching|meditation|metal|minimal|new age|"
    "orchestral|pop|progressive rock|psychedelic rock|punk|punk rock|r&b|ragtime|rap|"
    "reggae|reggaeton|rock|rock and roll|romantic|salsa|samba|ska|smooth jazz|soft rock|soul|"
    "spiritual|surf rock|swing|synthpop|synth pop|synthwave|tango|techno|traditional|"
    "trance|trap|world|chiptune|lo-fi|lofi|bebop|polka",
    "|",
)
_MOODS = _words(
    "aggressive angry anxious atmospheric bittersweet bouncy bright calm calming carefree "
    "chaotic cheerful chill comforting cool cosy dancing dark delicate determined dramatic "
    "dreamy easygoing eerie elegant emotional energetic engaging enthusiastic epic ethereal "
    "exciting expressive festive fiery fierce frantic fun funky gentle gloomy graceful groovy "
    "grim happy haunting heartfelt heroic hopeful humorous hypnotic inspiring intense "
    "intimate jolly joyful lively lonely lush majestic meditative melancholic melancholy "
    "mellow menacing mysterious nostalgic ominous optimistic passionate peaceful pensive "
    "playful poignant powerful quirky reflective relaxed relaxing restless romantic sad scary "
    "sentimental serene sinister sleepy solemn sombre soothing soulful spirited spooky "
    "suspenseful sweet tender tense thoughtful tragic tranquil triumphant trippy uplifting "
    "vibrant vigorous warm whimsical wistful youthful"
)


@dataclass(frozen=True)
class MusicalTags:
    """Tags by what they say; those that fit nowhere are left out.

    Attributes:
        instruments: What plays, each with the article it needs.
        voices: Who sings, likewise.
        genres: Styles, as they stand before `piece` or `music`.
        moods: Adjectives.
    """

    instruments: tuple[str, ...]
    voices: tuple[str, ...]
    genres: tuple[str, ...]
    moods: tuple[str, ...]


def sort_tags(tags: Sequence[str]) -> MusicalTags:
    """Sort the tags of a piece of music."""
    instruments, voices, genres, moods = [], [], [], []
    for tag in tags:
        words = tag.casefold().split()
        style = " ".join(words[:-1] if words[-1] in ("music", "song") else words)
        if words[0] in ("no", "not", "without"):
            continue
        if style in _GENRES:
            genres.append(tag.rsplit(" ", 1)[0] if words[-1] in ("music", "song") else tag)
        elif len(words) == 1 and words[0] in _MOODS:
            moods.append(tag)
        elif words[-1] in _PARTS:
            instruments.append(noun_phrase(tag).text)
        elif words[-1] in _INSTRUMENTS:
            instruments.append(tag)
        elif words[-1] in _VOICES:
            voices.append(noun_phrase(tag).text)
    return MusicalTags(tuple(instruments), tuple(voices), tuple(genres), tuple(moods))
