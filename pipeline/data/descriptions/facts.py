"""The facts of a clip as phrases that fit into sentences; no identifiers, no file names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.acoustics.musical_key import KEY_NAMES
from pipeline.data.descriptions.grammar import article, join_words
from pipeline.data.descriptions.language_names import language_name
from pipeline.data.descriptions.musical_words import sort_tags, without_category
from pipeline.data.descriptions.native import voice_slots
from pipeline.data.descriptions.sources import source_slots
from pipeline.data.descriptions.vocabulary import (
    MIN_BEAT_STRENGTH,
    MIN_KEY_CONFIDENCE,
    PITCH_BY_SEX,
    PITCH_OF_PERSON,
    PITCH_WORDS,
    SCALES,
)

MAX_LABEL_WORDS = 8
_MIN_ACTIVITY_S = 2.0  # of a single hit nobody says how often it comes
_AUDIO_NAME = re.compile(
    r"\S+\.(?:wav|wave|mp3|ogg|oga|opus|flac|m4a|aac|aiff?|webm|wma|mp4|json|csv|txt)\b", re.I
)
_IDENTIFIER = re.compile(
    r"https?:|www\.|[\\/]|[0-9a-f]{8,}|\d{4,}|[a-z]\d+[a-z]\d|@|\w+_\w+_\w+", re.IGNORECASE
)
_PRIVATE = re.compile(
    r"https?:|www\.|\w@\w|\b(?=\w*\d)[0-9a-f]{8,}\b|\w_\w|(?:^|\s)[~/\\]\w|\w[\\/]\w+[\\/]",
    re.IGNORECASE,
)
_ABBREVIATION = re.compile(
    r"(?:\b(?:mr|mrs|ms|mx|dr|prof|st|sr|jr|rev|gen|col|capt|lt|sgt|vs|feat|ft|approx|nos?|op|vol"
    r"|eg|ie|cf|ca)|(?<![^\s.(\"'])[^\W\d_])\.\Z",
    re.IGNORECASE,
)
_AND_SO_ON = re.compile(r"\betc\.\Z", re.IGNORECASE)
_WORD_BREAK = re.compile(r"(?<=[a-z])(?=[A-Z])|_+")
_TEMPO = re.compile(r"\b(?:tempo|bpm|fast|slow|upbeat|beats per)\b")
_STATED = {
    "tempo": _TEMPO,
    "bpm": _TEMPO,
    "colour": re.compile(r"\b(?:dark|bright|warm|mellow|crisp|timbre|tone)\b"),
    "level": re.compile(r"\b(?:loud|quiet|soft|faint|volume)\b"),
    "recording": re.compile(
        r"\b(?:quality|recording|lo-?fi|hi-?fi|nois[ey]|noisy|muffled|clean)\b"
    ),
    "stereo": re.compile(r"\b(?:stereo|mono)\b"),
    "dynamics": re.compile(r"\b(?:dynamics?|crescendo|volume)\b"),
    "trend": re.compile(r"\b(?:fad(?:es|ing)|crescendo|build(?:s|ing) up|swell)"),
    "room": re.compile(r"\b(?:reverb|echo|room|hall\b|acoustics|dry recording)"),
    "pitch": re.compile(r"\bpitch|\b(?:deep|low|high|small|childlike)\b[\w, -]* voice\b"),
    "pace": re.compile(r"\b(?:slow(?:ly)?|quick(?:ly)?|fast|rapid(?:ly)?|hurried(?:ly)?|pace)\b"),
    "tone": re.compile(
        r"\b(?:monotone|robotic|expressive\w*|animated|intonation|flat|lively|tone)\b"
    ),
    "key": re.compile(r"\b(?:major|minor|key of|tonality|atonal)\b"),
}
"""What people said about a clip stands; measured words on the same subject are left out."""
_PERSONS = {
    "female": ("a woman", "a female speaker", "a female voice"),
    "male": ("a man", "a male speaker", "a male voice"),
    "": ("a person", "someone", "a voice"),
}
_HUMANS = {
    "female": ("a woman", "a woman", "a female speaker"),
    "male": ("a man", "a man", "a male speaker"),
    "": ("a person", "someone"),
}
_NOUNS = {"female": ("woman", "female speaker"), "male": ("man", "male speaker"), "": ("speaker",)}
_SINGERS = {
    "female": ("a woman", "a female singer", "a female vocalist"),
    "male": ("a man", "a male singer", "a male vocalist"),
    "": ("a singer", "a vocalist", "someone"),
}
_PRONOUNS = {"female": ("she", "her"), "male": ("he", "his"), "": ("the speaker", "the")}
_VOICE_TAG = re.compile(r"(?:a |an )?(?P<words>[\w, -]+?) voice")


CONTENT = ("person", "source", "tags", "instruments", "genre", "kind", "mood", "theme", "style")
"""Subjects that say what a clip is, as opposed to how it measures."""


@dataclass(frozen=True)
class Facts:
    """Facts that the grammar may state about a clip.

    Attributes:
        modality: speech, sound, music, or singing where words are sung.
        captions: Sentences written for the clip, cleaned.
        slots: English phrases by slot.
        native: Phrases in the language of the speech by slot; empty where there is no grammar
            for the language.
        language: Primary BCP 47 subtag of the grammar that `native` is for.
        told: Subjects that the captions mention.
    """

    modality: str
    captions: tuple[str, ...]
    slots: dict[str, tuple[str, ...]]
    native: dict[str, tuple[str, ...]] = field(default_factory=dict)
    language: str = "en"
    told: frozenset[str] = frozenset()

    @property
    def has_content(self) -> bool:
        """Whether a slot says what the clip is, apart from measurements."""
        return any(slot.split("_")[0] in CONTENT for slot in self.slots)


def facts_of(clip: Mapping[str, Any], attributes: Mapping[str, float], *, max_words: int) -> Facts:
    """Facts of a clip from its row and what was measured.

    Args:
        clip: Row of `clips/`.
        attributes: Measured values by name.
        max_words: Longest caption kept; longer ones are cut at a sentence.
    """
    modality = clip["modality"]
    kind = "singing" if clip["is_singing"] else modality
    labels = unique(label for tag in clip["tags"] if (label := clean_label(tag)))
    said = _labels(labels, kind) if labels else {}
    title = " ".join((clip["title"] or "").split()).casefold()
    captions = unique(
        cleaned
        for text in clip["captions"]
        if " ".join(text.split()).casefold() != title
        and (cleaned := clean_caption(text, max_words))
    )
    told = _mentioned(captions)
    left_out = told | _mentioned(labels) | ({"pitch"} if "style" in said else set())
    slots = _voice(clip, attributes) if kind in ("speech", "singing") else {}
    slots |= _measured(modality, attributes, said)
    slots = {name: v for name, v in slots.items() if name.split("_")[0] not in left_out} | said
    if (shown := clean_title(clip["title"])) is not None:
        slots["title"] = (f'"{shown}"',)
    language = (clip["language"] or "").lower().replace("_", "-").partition("-")[0]
    native: dict[str, tuple[str, ...]] = {}
    if kind == "speech":
        native = voice_slots(language, clip["speaker_sex"], attributes, left_out)
    return Facts(kind, captions, slots, native, language if native else "en", frozenset(told))


def _measured(
    modality: str, attributes: Mapping[str, float], said: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str, ...]]:
    """Phrases for measured values, without the slots that tags have filled."""
    slots = _key(modality, attributes)
    for scale in SCALES:
        value = attributes.get(scale.attribute)
        if value is None or modality not in scale.modalities or scale.slot in slots:
            continue
        if scale.slot == "activity" and attributes.get("duration_s", 0.0) < _MIN_ACTIVITY_S:
            continue
        if (
            scale.attribute == "tempo_bpm"
            and attributes.get("beat_strength", 0) < MIN_BEAT_STRENGTH
        ):
            continue
        if words := scale.words(value):
            slots[scale.slot] = words
    if "tempo_word" in slots and "tempo" not in said:
        slots["bpm"] = _bpm(round(attributes["tempo_bpm"]))
    return {name: phrases for name, phrases in slots.items() if name not in said}


def _mentioned(texts: Iterable[str]) -> set[str]:
    stated = " ".join(texts).lower()
    return {subject for subject, mention in _STATED.items() if mention.search(stated)}


def _bpm(bpm: int) -> tuple[str, ...]:
    return (f"around {bpm} BPM", f"at {bpm} beats per minute", f"at about {bpm} BPM")


def _voice(clip: Mapping[str, Any], attributes: Mapping[str, float]) -> dict[str, tuple[str, ...]]:
    sex = clip["speaker_sex"] if clip["speaker_sex"] in ("female", "male") else ""
    slots: dict[str, tuple[str, ...]] = {}
    slots["person"] = (_SINGERS if clip["is_singing"] else _PERSONS)[sex]
    slots["person_human"] = (_SINGERS if clip["is_singing"] else _HUMANS)[sex]
    slots["person_plain"] = (f"{sex} voice".strip(),)
    slots["person_noun"] = _NOUNS[sex]
    slots["pronoun"], slots["possessive"] = ((word,) for word in _PRONOUNS[sex])
    if sex:
        slots["person_sex"] = (sex,)
    if (language := language_name(clip["language"])) is not None:
        slots["language"] = (language,)
        if " " not in language:
            slots["language_single"] = (language,)
        if language.endswith(" English"):
            accent = language.removesuffix(" English")
            slots["language_plain"] = ("English",)
            slots["language_accent"] = (f"{article(accent)} {accent} accent",)
    pitch_hz = attributes.get("pitch_median_hz")
    if pitch_hz is not None and not clip["is_singing"]:
        kind = next(kind for bound, kind in PITCH_BY_SEX[sex] if pitch_hz < bound)
        slots["pitch"] = PITCH_WORDS[kind]
        slots["pitch_person"] = PITCH_OF_PERSON.get(kind, ())
    return slots


def _key(modality: str, attributes: Mapping[str, float]) -> dict[str, tuple[str, ...]]:
    number = attributes.get("key_number")
    is_certain = attributes.get("key_confidence", 0.0) >= MIN_KEY_CONFIDENCE
    if number is None or modality != "music" or not is_certain:
        return {}
    return {"key": (KEY_NAMES[int(number)],)}


def _labels(labels: Sequence[str], modality: str) -> dict[str, tuple[str, ...]]:
    listed = {"labels": (", ".join(without_category(label) for label in labels),)}
    if modality == "sound":
        return listed | source_slots(labels)
    if modality == "speech":
        return listed | _speech_labels(labels)
    found = sort_tags(labels)
    slots: dict[str, tuple[str, ...]] = dict(listed)
    if len(found.listed) > 1 or not found.names_content:
        tags = found.listed or tuple(labels)
        slots["tags"] = (", ".join(tags[:6]), ", ".join(tags[:3]))
    # Who sings a song is known better from the corpus.
    playing = found.instruments + (found.voices if modality == "music" else ())
    slots["instruments"] = (join_words(playing[:3]),)
    slots["genre"] = found.genres[:2]
    slots["kind"] = found.kinds[:2]
    slots["mood"] = (*found.moods[:2], join_words(found.moods[:2]))
    slots["theme"] = found.themes[:2]
    slots["recording_kind"] = found.recordings[:1]
    if found.tempo:
        slots["tempo"] = (found.tempo,)
        if found.tempo != "mid-tempo":
            slots["tempo_word"] = (found.tempo,)
    if found.bpm:
        slots["bpm"] = _bpm(found.bpm)
    if found.key:
        slots["key"] = (found.key,)
    kept = {name: unique(filter(None, phrases)) for name, phrases in slots.items()}
    return {name: phrases for name, phrases in kept.items() if phrases}


def _speech_labels(labels: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Tags that describe a voice stand before `voice`; the others are listed."""
    slots: dict[str, tuple[str, ...]] = {"tags": (", ".join(labels[:3]),)}
    voices = [match["words"] for label in labels if (match := _VOICE_TAG.fullmatch(label))]
    if voices:
        slots["style"] = tuple(voices)
    return slots


def clean_label(tag: str) -> str | None:
    """A class label as plain words; None if it is an identifier, a file name, or too long."""
    text = " ".join(tag.split()).strip(" .,:;#\"'")
    if not text or _AUDIO_NAME.search(text) or _IDENTIFIER.search(text):
        return None
    text = re.sub(r"\s*\([^)]*\)", "", _WORD_BREAK.sub(" ", text)).strip()
    text = re.sub(r"(?<=[^\W\d]{2})\d+\b", "", " ".join(text.split()))
    if not re.search(r"[^\W\d]", text) or len(text.split()) > MAX_LABEL_WORDS:
        return None
    return text if any(len(w) > 1 and w.isupper() for w in text.split()) else text.lower()


def names_a_file(text: str) -> bool:
    """Whether a text holds a file name, a path, an address, or an identifier."""
    return bool(_AUDIO_NAME.search(text) or _PRIVATE.search(text))


def clean_title(title: str | None) -> str | None:
    """A title that reads like one; None for identifiers.

    Sound libraries put file names for titles. One that is made of words is kept without ending,
    take number and author.
    """
    text = " ".join((title or "").split()).replace('"', "'")
    if _AUDIO_NAME.search(text):
        stem = re.sub(r"\.\w{2,4}\b.*$", "", text)
        text = re.sub(r"[\s,;:-]*\d*$", "", stem)
        if " " not in text:
            return None
    if not text or "_" in text or _AUDIO_NAME.search(text) or _IDENTIFIER.search(text):
        return None
    return text if re.search(r"[^\W\d]{2}", text) and len(text.split()) <= 12 else None


def clean_caption(text: str, max_words: int) -> str | None:
    """A caption as whole sentences without file names, at most `max_words` long; None if empty."""
    kept: list[str] = []
    for sentence in split_sentences(text):
        if not re.search(r"\w", sentence) or _AUDIO_NAME.search(sentence):
            continue
        sentence = re.sub(r"\w*_\w+", lambda name: _WORD_BREAK.sub(" ", name[0]).lower(), sentence)
        words = sentence.split()
        room = max_words - sum(len(s.split()) for s in kept)
        if len(words) > room:
            if not kept:
                kept.append(" ".join(words[:room]).rstrip(",;:-") + ".")
            break
        kept.append(sentence)
    if not kept:
        return None
    whole = re.sub(r"\s+([,.;:!?])", r"\1", " ".join(kept))
    whole = whole[0].upper() + whole[1:]
    return whole if whole[-1] in ".!?\"')" else whole.rstrip(",;:-") + "."


def split_sentences(text: str) -> list[str]:
    """Sentences of a text; none ends at the dot of an abbreviation or of an initial."""
    sentences: list[str] = []
    for piece in re.split(r"(?<=[.!?])\s+", " ".join(text.split())):
        before = sentences[-1] if sentences else ""
        goes_on = _AND_SO_ON.search(before) and piece[:1].islower()
        if goes_on or _ABBREVIATION.search(before):
            sentences[-1] = f"{before} {piece}"
        else:
            sentences.append(piece)
    return sentences


def unique(values: Iterable[str]) -> tuple[str, ...]:
    """Values in order, each once whatever its case."""
    found: dict[str, str] = {}
    for value in values:
        found.setdefault(value.casefold(), value)
    return tuple(found.values())
