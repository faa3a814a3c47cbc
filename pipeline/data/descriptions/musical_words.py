"""Sorting of music tags into instruments, styles, moods and other slots of a sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.data.descriptions.language_names import LANGUAGES
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
    "accompaniment arpeggio arpeggios arrangement arrangements band bassline beat beats chants "
    "chimes choir chord chords effects gong groove harmony harmonies hit hits instrument "
    "instruments kick lead licks line lines loop loops melody melodies notes orchestra pad pads "
    "pattern patterns progression riff riffs rhythm rhythms rimshots roll rolls section snare solo "
    "solos sounds strumming tablas tones turntable"
)
_VOICES = _words(
    "vocal vocals voice voices singer singers vocalist vocalists singing rapping chanting "
    "vocalisation vocalization yodelling beatboxing"
)
_GENRES = _words(
    "acoustic|afrobeat|ambient|baroque|bluegrass|blues|bossa nova|breakbeat|celtic|chillout|"
    "choral|christmas|cinematic|classical|club|country|cumbia|dance|dancehall|disco|downtempo|"
    "drum and bass|dub|dubstep|edm|electro|electronic|electronic dance|ethnic|experimental|film|"
    "flamenco|folk|funk|fusion|garage|gospel|grunge|hard rock|heavy metal|hip hop|hip-hop|house|"
    "indie|industrial|instrumental|jazz|jazz fusion|latin|lounge|marching|meditation|metal|"
    "minimal|new age|"
    "orchestral|pop|progressive rock|psychedelic rock|punk|punk rock|r&b|ragtime|rap|"
    "reggae|reggaeton|rock|rock and roll|romantic|salsa|samba|ska|smooth jazz|soft rock|soul|"
    "psychedelic|spiritual|surf rock|swing|synthpop|synth pop|synthwave|tango|techno|traditional|"
    "trance|trap|world|chiptune|lo-fi|lofi|bebop|polka|electronica|opera|a cappella|acapella|"
    "alternative|easy listening|r&b|singer-songwriter|soundscape|march",
    "|",
)
_GENRE_HEADS = _words(
    "pop rock jazz hop metal folk classical punk blues funk soul house techno trance reggae "
    "country "
    "disco swing bop gospel rap electro edm indie"
)
"""Last words of names of styles: `alternative rock`, `western classical`."""
_KINDS = _words(
    "song songs ballad lullaby soundtrack jingle anthem duet tune waltz hymn carol remix cover "
    "medley "
    "serenade theme jam solo instrumental intro"
)
"""Last words of what a piece is: `love song`, `movie soundtrack`."""
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
    "vibrant vigorous warm whimsical wistful youthful addictive adventurous animated boisterous "
    "buoyant captivating catchy celestial comedic compelling cozy danceable deep devotional "
    "eccentric enchanting enigmatic exotic funny futuristic harsh heavy happy hard jazzy laid-back "
    "manic melodic melodious meditational minimalist motivational mystical nostalgic peppy perky "
    "pleasant positive pulsating punchy rebellious religious retro rhythmic sensual sexy simple "
    "slow smooth soft suspenseful upbeat urban vintage violent vivacious weird"
)


_RENAMED = {
    "ambiental": "ambient", "drama": "dramatic", "dream": "dreamy", "e-bass": "electric bass",
    "e-guitar": "electric guitar", "e-guitars": "electric guitars", "fun": "fun",
}  # fmt: skip
"""Tags that do not fit into a sentence, and the words that replace them."""
_THEMES = {
    "action": "for an action scene", "adventure": "for an adventure",
    "advertising": "for an advert",
    "background": "for the background", "children": "for children", "christmas": "for Christmas",
    "commercial": "for a commercial", "corporate": "for a corporate video",
    "documentary": "for a documentary", "film": "for a film", "game": "for a video game",
    "holiday": "for the holidays", "love": "about love", "movie": "for a film",
    "nature": "for a nature film", "party": "for a party", "space": "for a scene in space",
    "sport": "for a sports video", "summer": "for the summer", "trailer": "for a film trailer",
    "travel": "for a travel video",
}  # fmt: skip
_PROPER = re.compile(
    r"\b(?:african|american|asian|balkan|brazilian|british|caribbean|celtic|christmas|cuban|"
    r"egyptian|european|hawaiian|jamaican|latin|mexican|middle eastern|"
    + "|".join(name.lower() for name in LANGUAGES.values() if name not in ("Polish", "Ewe", "Twi"))
    + r")\b"
)
"""Words that are written with a capital letter."""
_TEMPO = re.compile(
    r"(?:(?P<word>slow|slower|medium|moderate|fast|medium fast|very slow|very fast) tempo"
    r"|(?P<up>up ?-?tempo))"
)
_MODERATE = {"medium": "mid-tempo", "moderate": "mid-tempo", "slower": "slow"}
_BPM = re.compile(r"(\d{2,3}) ?bpm")
_KEY = re.compile(r"(?:in |key of )?([a-g])((?: flat| sharp|#|b)?) (major|minor)")
_POOR = re.compile(r"(?:low|poor|bad|inferior) (?:audio |sound |recording )?(?:quality|fidelity)\b")
_RECORDINGS = {
    "live performance": "live", "live recording": "live", "amateur recording": "amateur",
    "home recording": "home", "noisy": "noisy", "muffled": "muffled", "muffled audio": "muffled",
    "field recording": "field",
}  # fmt: skip
_CATEGORY = re.compile(r"(genre|instrument|mood): +(.+)", re.IGNORECASE)


@dataclass(frozen=True)
class MusicalTags:
    """Tags by the slot they fill; tags that fit nowhere are left out.

    Attributes:
        instruments: What plays, each with the article it needs.
        voices: Singers, each with its article.
        genres: Styles that stand before `piece` or `music`.
        kinds: What the piece is, in place of `piece`: `love song`.
        moods: Adjectives.
        themes: What it is for or about, with the preposition.
        listed: Words of every tag but those for tempo, key and theme.
        recordings: Adjectives that stand before `recording`.
        tempo: Adjective; None if no tag says it.
        bpm: Beats per minute; None if no tag says it.
        key: Musical key, such as `E flat major`; None if no tag states it.
    """

    instruments: tuple[str, ...]
    voices: tuple[str, ...]
    genres: tuple[str, ...]
    kinds: tuple[str, ...]
    moods: tuple[str, ...]
    themes: tuple[str, ...]
    listed: tuple[str, ...]
    recordings: tuple[str, ...]
    tempo: str | None
    bpm: int | None
    key: str | None

    @property
    def names_content(self) -> bool:
        """Whether any tag has a place in a sentence about what the music is."""
        return any((self.instruments, self.genres, self.kinds, self.moods, self.themes))


def without_category(tag: str) -> str:
    """The words of a tag such as `genre: hip hop`."""
    match = _CATEGORY.fullmatch(tag)
    return match[2] if match else tag


def sort_tags(tags: Sequence[str]) -> MusicalTags:
    """Tags of a piece of music by slot; a category given with the tag decides, else its words."""
    found: dict[str, list[str]] = {name: [] for name in (*_WORD_LISTS, "listed", "recording")}
    tempo = bpm = key = None
    for tag in tags:
        match = _CATEGORY.fullmatch(tag)
        words = _RENAMED.get(without_category(tag).casefold(), without_category(tag))
        words = _PROPER.sub(lambda name: name[0].title(), words)
        lower = words.casefold()
        if stated := _TEMPO.fullmatch(lower):
            word = stated["word"] or "fast"
            tempo = _MODERATE.get(word, word)
        elif stated := _BPM.fullmatch(lower):
            bpm = int(stated[1])
        elif stated := _KEY.fullmatch(lower):
            key = f"{stated[1].upper()}{stated[2]} {stated[3]}"
        elif lower not in _THEMES:
            found["listed"].append(words)
        if lower.split()[0] in ("no", "not", "without") or _TEMPO.fullmatch(lower):
            continue
        if _POOR.match(lower) or lower in _RECORDINGS:
            found["recording"].append(_RECORDINGS.get(lower, "low-quality"))
        elif slot := _slot_of(lower, match[1].lower() if match else None):
            found[slot].append(_phrase(words, slot))
    return MusicalTags(
        tuple(found["instrument"]),
        tuple(found["voice"]),
        tuple(found["genre"]),
        tuple(found["kind"]),
        tuple(found["mood"]),
        tuple(found["theme"]),
        tuple(found["listed"]),
        tuple(dict.fromkeys(found["recording"])),
        tempo,
        bpm,
        key,
    )


_WORD_LISTS = ("instrument", "voice", "genre", "kind", "mood", "theme")


def _slot_of(tag: str, category: str | None) -> str | None:
    words = tag.split()
    style = " ".join(words[:-1]) if len(words) > 1 and words[-1] in ("music", "song") else tag
    mood = " ".join(words[:-1]) if len(words) == 2 and words[1] in ("mood", "music") else tag
    if category == "genre":
        return "genre"
    if category == "instrument":
        return "voice" if words[-1] in _VOICES else "instrument"
    if tag in _THEMES and (category == "mood" or tag not in _GENRES):
        return "theme"
    if style in _GENRES:
        return "genre"
    if mood in _MOODS:
        return "mood"
    if len(words) <= 4 and words[-1] in _KINDS and len(words) + (words[-1] == "ballad") > 1:
        return "kind"
    if len(words) <= 3 and words[-1] in _GENRE_HEADS:
        return "genre"
    if words[-1] in _VOICES:
        return "voice"
    if words[-1] in _PARTS or words[-1] in _INSTRUMENTS or tag == "drum machine":
        return "instrument"
    return "mood" if category == "mood" else None


def _phrase(words: str, slot: str) -> str:
    lower = words.casefold()
    last = lower.split()[-1]
    if slot == "theme":
        return _THEMES[lower]
    if slot == "genre" and " " in lower and last in ("music", "song"):
        return words.rsplit(" ", 1)[0]
    if slot == "mood" and " " in lower and last in ("mood", "music"):
        return words.rsplit(" ", 1)[0]
    if slot == "kind":
        return words.removesuffix("s") if lower.endswith("songs") else words
    if slot == "instrument" and last in _INSTRUMENTS:
        return words
    return noun_phrase(words).text if slot in ("instrument", "voice") else words
