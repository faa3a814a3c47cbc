"""What is known of a clip, as phrases that fit into sentences; no identifiers, no file names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.acoustics.musical_key import KEY_NAMES
from pipeline.data.descriptions.grammar import join_words
from pipeline.data.descriptions.language_names import language_name
from pipeline.data.descriptions.musical_words import sort_tags
from pipeline.data.descriptions.vocabulary import (
    MIN_BEAT_STRENGTH,
    MIN_KEY_CONFIDENCE,
    PITCH_BY_SEX,
    PITCH_OF_PERSON,
    PITCH_WORDS,
    SCALES,
    about_seconds,
    noun_phrase,
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
    "recording": re.compile(r"\b(?:quality|recording|lo-?fi|hi-?fi|nois[ey]|noisy)\b"),
    "stereo": re.compile(r"\b(?:stereo|mono)\b"),
    "dynamics": re.compile(r"\b(?:dynamics?|crescendo|volume)\b"),
    "trend": re.compile(r"\b(?:fad(?:es|ing)|crescendo|build(?:s|ing) up|swell)"),
    "room": re.compile(r"\b(?:reverb|echo|room|hall\b|acoustics)"),
    "key": re.compile(r"\b(?:major|minor|key of|tonality|atonal)\b"),
}
"""What people said of a clip stands; measured words on the same subject are left out."""
_PERSONS = {
    "female": ("a woman", "a female speaker", "a female voice", "a lady", "a woman's voice"),
    "male": ("a man", "a male speaker", "a male voice", "a man's voice"),
    "": ("a person", "a speaker", "a voice", "someone", "one person"),
}
_HUMANS = {"female": ("a woman", "a female speaker", "a lady"), "male": ("a man", "a male speaker")}
_NOUNS = {"female": ("woman", "female speaker"), "male": ("man", "male speaker")}
_SINGERS = {
    "female": ("a woman", "a female singer", "a female vocalist", "a female voice"),
    "male": ("a man", "a male singer", "a male vocalist", "a male voice"),
    "": ("a singer", "a vocalist", "a voice", "someone"),
}
_HUMAN_SINGERS = {
    "female": ("a woman", "a female singer", "a female vocalist"),
    "male": ("a man", "a male singer", "a male vocalist"),
}
_VOICES = {"female": ("female voice", "woman's voice"), "male": ("male voice", "man's voice")}


@dataclass(frozen=True)
class Facts:
    """What the grammar may say of a clip.

    Attributes:
        modality: speech, sound, music, or singing where words are sung.
        captions: Sentences written for the clip, cleaned.
        slots: Phrases by slot.
    """

    modality: str
    captions: tuple[str, ...]
    slots: dict[str, tuple[str, ...]]


def facts_of(clip: Mapping[str, Any], attributes: Mapping[str, float], *, max_words: int) -> Facts:
    """Facts of a clip from its row and what was measured.

    Args:
        clip: Row of `clips/`.
        attributes: Measured values by name.
        max_words: Longest caption kept; longer ones are cut at a sentence.
    """
    modality = clip["modality"]
    slots: dict[str, tuple[str, ...]] = {}
    if clip["is_singing"] or modality == "speech":
        slots |= _voice(clip, attributes)
    labels = unique(label for tag in clip["tags"] if (label := clean_label(tag)))
    if labels:
        slots |= _labels(labels, "singing" if clip["is_singing"] else modality)
    if (title := clean_title(clip["title"])) is not None:
        slots["title"] = (f'"{title}"',)
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
    if "tempo" in slots:
        bpm = round(attributes["tempo_bpm"])
        slots["bpm"] = (f"around {bpm} BPM", f"at {bpm} beats per minute", f"roughly {bpm} BPM")
    slots |= _key(modality, attributes)
    if "duration_s" in attributes:
        slots["length"] = (about_seconds(attributes["duration_s"]),)
    title = " ".join((clip["title"] or "").split()).casefold()
    captions = unique(
        cleaned
        for text in clip["captions"]
        if " ".join(text.split()).casefold() != title
        and (cleaned := clean_caption(text, max_words))
    )
    stated = " ".join([*captions, *labels]).lower()
    for subject, mention in _STATED.items():
        if mention.search(stated):
            slots = {n: phrases for n, phrases in slots.items() if n.split("_")[0] != subject}
    return Facts("singing" if clip["is_singing"] else modality, captions, slots)


def _voice(clip: Mapping[str, Any], attributes: Mapping[str, float]) -> dict[str, tuple[str, ...]]:
    sex = clip["speaker_sex"] if clip["speaker_sex"] in ("female", "male") else ""
    slots: dict[str, tuple[str, ...]] = {}
    slots["person"] = (_SINGERS if clip["is_singing"] else _PERSONS)[sex]
    if clip["is_singing"]:
        slots["person_human"] = _HUMAN_SINGERS.get(sex, ("a singer", "a vocalist"))
    else:
        slots["person_human"] = _HUMANS.get(sex, ("a person", "someone", "a speaker"))
    slots["person_voice"] = _VOICES.get(sex, ("voice",))
    slots["person_plain"] = (f"{sex} voice".strip(),)
    slots["person_noun"] = _NOUNS.get(sex, ("speaker",))
    if sex:
        slots["person_sex"] = (sex,)
    if (language := language_name(clip["language"])) is not None:
        slots["language"] = (language,)
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
    slots: dict[str, tuple[str, ...]] = {"tags": (", ".join(labels[:6]), ", ".join(labels[:3]))}
    if modality == "sound":
        # Several names of one thing in a label, as ontologies give: the first one is enough.
        phrases = [noun_phrase(label.split(", ")[0]) for label in labels[:3]]
        subjects = join_words([phrase.text for phrase in phrases])
        is_plural = len(phrases) > 1 or phrases[0].is_plural
        slots["source_plural" if is_plural else "source_singular"] = (subjects,)
        slots["source"] = (subjects,)
        slots["source_tags"] = slots.pop("tags")
        return slots
    if modality in ("music", "singing"):
        found = sort_tags(labels)
        # Who sings a song is known better from the corpus.
        playing = found.instruments + (found.voices if modality == "music" else ())
        slots["instruments"] = (join_words(playing[:3]),)
        slots["genre"] = found.genres[:2]
        slots["mood"] = (*found.moods[:2], join_words(found.moods[:2]))
    return {name: unique(filter(None, phrases)) for name, phrases in slots.items()}


def clean_label(tag: str) -> str | None:
    """A class label as plain words; None if it is an identifier, a file name, or too long."""
    text = " ".join(tag.split()).strip(" .,:;#\"'")
    if not text or _AUDIO_NAME.search(text) or _IDENTIFIER.search(text):
        return None
    text = re.sub(r"(?<=[^\W\d]{2})\d+\b", "", " ".join(_WORD_BREAK.sub(" ", text).split()))
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
