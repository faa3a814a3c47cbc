"""Voice descriptions in the language of the speech, for the languages of the lexicons but English.

A grammar a language, with the slots of the English one: person, pitch, pace, tone, pauses,
recording, room. Words are chosen by the same ranges as the English ones.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pipeline.data.descriptions.grammar import Grammar
from pipeline.data.descriptions.vocabulary import PITCH_BY_SEX, SCALES, Scale

_SLOTS = ("pace", "tone", "pauses", "recording", "room")
_SCALES: dict[str, Scale] = {
    scale.slot: scale
    for scale in SCALES
    if scale.slot in _SLOTS and scale.modalities == ("speech",)
}
Phrases = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Phrasebook:
    """The words of one language.

    Attributes:
        person: Noun for the speaker by sex; the empty key is for unknown.
        voice: The voice as a noun phrase, by sex.
        pitch: Noun phrases for the voice by kind of pitch.
        pace: Phrases by the steps of the English scale.
        tone: Phrases by the steps of the English scale.
        pauses: Phrases by the steps of the English scale.
        recording: Adjectives that agree with the word for recording, by the steps of the signal to
            noise ratio.
        room: Phrases by the steps of the English scale.
        rules: The grammar; starts with `speech`.
    """

    person: Mapping[str, tuple[str, ...]]
    voice: Mapping[str, tuple[str, ...]]
    pitch: Mapping[str, tuple[str, ...]]
    pace: Phrases
    tone: Phrases
    pauses: Phrases
    recording: Phrases
    room: Phrases
    rules: Mapping[str, tuple[str, ...]]


_GERMAN = Phrasebook(
    person={
        "female": ("eine Frau", "eine Sprecherin"),
        "male": ("ein Mann", "ein Sprecher"),
        "": ("eine Person", "jemand"),
    },
    voice={"female": ("Frauenstimme",), "male": ("Männerstimme",), "": ("Stimme",)},
    pitch={
        "deep": ("tiefer Stimme", "tiefer, dunkler Stimme"),
        "medium": ("mittlerer Stimmlage",),
        "high": ("hoher Stimme", "heller Stimme"),
    },
    pace=(
        ("sehr langsam",),
        ("langsam", "ohne Eile"),
        ("in normalem Tempo", "in mittlerem Tempo"),
        ("schnell", "zügig"),
        ("sehr schnell",),
    ),
    tone=(
        ("monoton",),
        ("mit wenig Betonung",),
        ("mit natürlicher Betonung", "im Gesprächston"),
        ("lebhaft", "ausdrucksvoll"),
        ("sehr ausdrucksvoll", "sehr lebhaft"),
    ),
    pauses=((), ("mit kurzen Pausen",), ("mit langen Pausen", "mit vielen Pausen")),
    recording=(("verrauscht",), ("leicht verrauscht",), (), ("klar", "rauschfrei")),
    room=(
        ("in einem trockenen Raum",),
        (),
        ("in einem halligen Raum",),
        ("in einem großen, halligen Raum",),
    ),
    rules={
        "speech": (
            "{person} spricht[ {pace}][, {tone}][, {pauses}].[ <after>.]",
            "{person} spricht[ {pace}] mit {pitch}[, {tone}].[ <after>.]",
            "{person} mit {pitch} spricht[ {pace}][, {tone}].[ <after>.]",
            "{person} liest vor, {pace}[, {tone}][, {pauses}].[ <after>.]",
            "{person} spricht {tone}. <after>.",
            "deutsche {person_voice}[, {pace} gesprochen][, {tone}].",
            "{person} spricht Deutsch[, {pace}][, {tone}].[ <after>.]",
        ),
        "after": (
            "die Aufnahme ist {recording}",
            "aufgenommen {room}",
            "die Aufnahme ist {recording} und entstand {room}",
        ),
    },
)
_FRENCH = Phrasebook(
    person={
        "female": ("une femme", "une locutrice"),
        "male": ("un homme", "un locuteur"),
        "": ("une personne", "quelqu'un"),
    },
    voice={"female": ("voix de femme",), "male": ("voix d'homme",), "": ("voix",)},
    pitch={
        "deep": ("voix grave", "voix profonde"),
        "medium": ("voix de hauteur moyenne",),
        "high": ("voix aiguë", "voix claire"),
    },
    pace=(
        ("très lentement",),
        ("lentement", "sans se presser"),
        ("à un rythme normal",),
        ("vite", "rapidement"),
        ("très vite", "très rapidement"),
    ),
    tone=(
        ("d'un ton monotone",),
        ("avec peu d'intonation",),
        ("avec une intonation naturelle", "sur le ton de la conversation"),
        ("d'un ton animé", "de façon expressive"),
        ("de façon très expressive",),
    ),
    pauses=((), ("avec de courtes pauses",), ("avec de longues pauses", "avec beaucoup de pauses")),
    recording=(("bruité",), ("légèrement bruité",), (), ("net", "sans bruit de fond")),
    room=(
        ("dans une pièce sans écho",),
        (),
        ("dans une pièce réverbérante",),
        ("dans un grand espace plein d'écho",),
    ),
    rules={
        "speech": (
            "{person} parle[ {pace}][, {tone}][, {pauses}].[ <after>.]",
            "{person} parle[ {pace}] d'une {pitch}[, {tone}].[ <after>.]",
            "{person} à la {pitch} parle[ {pace}][, {tone}].[ <after>.]",
            "{person} lit à voix haute, {pace}[, {tone}][, {pauses}].[ <after>.]",
            "{person} parle {tone}. <after>.",
            "une {person_voice} qui parle français[ {pace}][, {tone}].",
            "{person} parle français[ {pace}][, {tone}].[ <after>.]",
        ),
        "after": (
            "l'enregistrement est {recording}",
            "enregistré {room}",
            "l'enregistrement est {recording} et a été fait {room}",
        ),
    },
)
_ITALIAN = Phrasebook(
    person={
        "female": ("una donna", "una voce femminile"),
        "male": ("un uomo", "una voce maschile"),
        "": ("una persona", "qualcuno"),
    },
    voice={"female": ("voce femminile",), "male": ("voce maschile",), "": ("voce",)},
    pitch={
        "deep": ("voce bassa", "voce profonda"),
        "medium": ("voce di altezza media",),
        "high": ("voce alta", "voce acuta"),
    },
    pace=(
        ("molto lentamente",),
        ("lentamente", "senza fretta"),
        ("a velocità normale",),
        ("velocemente", "in fretta"),
        ("molto velocemente",),
    ),
    tone=(
        ("in tono monotono",),
        ("con poca intonazione",),
        ("con intonazione naturale", "in tono colloquiale"),
        ("in modo espressivo", "in tono vivace"),
        ("in modo molto espressivo",),
    ),
    pauses=((), ("con brevi pause",), ("con lunghe pause", "con molte pause")),
    recording=(("rumorosa",), ("un po' rumorosa",), (), ("pulita", "nitida")),
    room=(
        ("in una stanza senza eco",),
        (),
        ("in una stanza riverberante",),
        ("in un grande spazio pieno di eco",),
    ),
    rules={
        "speech": (
            "{person} parla[ {pace}][, {tone}][, {pauses}].[ <after>.]",
            "{person_human} parla[ {pace}] con {pitch}[, {tone}].[ <after>.]",
            "{person_human} con una {pitch} parla[ {pace}][, {tone}].[ <after>.]",
            "{person_human} legge ad alta voce, {pace}[, {tone}][, {pauses}].[ <after>.]",
            "{person} parla {tone}. <after>.",
            "una {person_voice} che parla italiano[ {pace}][, {tone}].",
            "{person} parla in italiano[ {pace}][, {tone}].[ <after>.]",
        ),
        "after": (
            "la registrazione è {recording}",
            "registrato {room}",
            "la registrazione è {recording} ed è stata fatta {room}",
        ),
    },
)
_SPANISH = Phrasebook(
    person={
        "female": ("una mujer", "una voz femenina"),
        "male": ("un hombre", "una voz masculina"),
        "": ("una persona", "alguien"),
    },
    voice={"female": ("voz de mujer",), "male": ("voz de hombre",), "": ("voz",)},
    pitch={
        "deep": ("voz grave", "voz profunda"),
        "medium": ("voz de tono medio",),
        "high": ("voz aguda",),
    },
    pace=(
        ("muy despacio", "muy lentamente"),
        ("despacio", "lentamente"),
        ("a un ritmo normal",),
        ("deprisa", "rápidamente"),
        ("muy deprisa", "muy rápidamente"),
    ),
    tone=(
        ("en tono monótono",),
        ("con poca entonación",),
        ("con entonación natural", "en tono de conversación"),
        ("de forma expresiva", "en tono animado"),
        ("de forma muy expresiva",),
    ),
    pauses=((), ("con pausas cortas",), ("con pausas largas", "con muchas pausas")),
    recording=(("ruidosa",), ("algo ruidosa",), (), ("limpia", "nítida")),
    room=(
        ("en una sala sin eco",),
        (),
        ("en una sala con reverberación",),
        ("en un espacio grande con mucho eco",),
    ),
    rules={
        "speech": (
            "{person} habla[ {pace}][, {tone}][, {pauses}].[ <after>.]",
            "{person_human} habla[ {pace}] con {pitch}[, {tone}].[ <after>.]",
            "{person_human} con una {pitch} habla[ {pace}][, {tone}].[ <after>.]",
            "{person_human} lee en voz alta, {pace}[, {tone}][, {pauses}].[ <after>.]",
            "{person} habla {tone}. <after>.",
            "una {person_voice} que habla español[ {pace}][, {tone}].",
            "{person} habla en español[ {pace}][, {tone}].[ <after>.]",
        ),
        "after": (
            "la grabación es {recording}",
            "grabado {room}",
            "la grabación es {recording} y se hizo {room}",
        ),
    },
)
_PORTUGUESE = Phrasebook(
    person={
        "female": ("uma mulher", "uma voz feminina"),
        "male": ("um homem", "uma voz masculina"),
        "": ("uma pessoa", "alguém"),
    },
    voice={"female": ("voz de mulher",), "male": ("voz de homem",), "": ("voz",)},
    pitch={
        "deep": ("voz grave", "voz profunda"),
        "medium": ("voz de altura média",),
        "high": ("voz aguda",),
    },
    pace=(
        ("muito devagar", "muito lentamente"), ("devagar", "lentamente"), ("em ritmo normal",),
        ("depressa", "rapidamente"), ("muito depressa", "muito rapidamente"),
    ),
    tone=(
        ("em tom monótono",), ("com pouca entonação",),
        ("com entonação natural", "em tom de conversa"),
        ("de forma expressiva", "em tom animado"), ("de forma muito expressiva",),
    ),
    pauses=((), ("com pausas curtas",), ("com pausas longas", "com muitas pausas")),
    recording=(("ruidosa",), ("um pouco ruidosa",), (), ("limpa", "nítida")),
    room=(
        ("numa sala sem eco",), (), ("numa sala com reverberação",),
        ("num espaço grande com muito eco",),
    ),
    rules={
        "speech": (
            "{person} fala[ {pace}][, {tone}][, {pauses}].[ <after>.]",
            "{person_human} fala[ {pace}] com {pitch}[, {tone}].[ <after>.]",
            "{person_human} com uma {pitch} fala[ {pace}][, {tone}].[ <after>.]",
            "{person_human} lê em voz alta, {pace}[, {tone}][, {pauses}].[ <after>.]",
            "{person} fala {tone}. <after>.",
            "uma {person_voice} que fala português[ {pace}][, {tone}].",
            "{person} fala em português[ {pace}][, {tone}].[ <after>.]",
        ),
        "after": (
            "a gravação é {recording}",
            "gravado {room}",
            "a gravação é {recording} e foi feita {room}",
        ),
    },
)  # fmt: skip

PHRASEBOOKS = {
    "de": _GERMAN,
    "es": _SPANISH,
    "fr": _FRENCH,
    "it": _ITALIAN,
    "pt": _PORTUGUESE,
}
"""Phrasebooks by primary BCP 47 subtag."""
NATIVE_GRAMMARS = {language: Grammar(book.rules) for language, book in PHRASEBOOKS.items()}
"""Grammars of the phrasebooks."""


def voice_slots(
    language: str, sex: str | None, attributes: Mapping[str, float], left_out: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """Phrases for a voice in a language; empty if there is no phrasebook for it.

    Args:
        language: Primary BCP 47 subtag.
        sex: female, male or None.
        attributes: Measured values by name.
        left_out: Slots that people spoke of already.
    """
    book = PHRASEBOOKS.get(language)
    if book is None:
        return {}
    known_sex = sex if sex in ("female", "male") else ""
    people = book.person[known_sex]
    slots = {
        "person": people,
        "person_human": people[:1],
        "person_voice": book.voice[known_sex],
    }
    for slot, scale in _SCALES.items():
        if (value := attributes.get(scale.attribute)) is not None:
            slots[slot] = getattr(book, slot)[scale.step(value)]
    pitch_hz = attributes.get("pitch_median_hz")
    if pitch_hz is not None:
        kind = next(kind for bound, kind in PITCH_BY_SEX[known_sex] if pitch_hz < bound)
        slots["pitch"] = book.pitch[kind]
    return {name: phrases for name, phrases in slots.items() if phrases and name not in left_out}
