"""What a listener would say of a spoken clip: who speaks, how, and where."""

from __future__ import annotations

import numpy as np

from pipeline.data.descriptions.language_names import language_name
from pipeline.data.starter.voices import Speaker

_PERSON = {"female": "woman", "male": "man"}
PACES = {"slow": "slowly", "fast": "quickly"}
"""Adverb of each manner that is a pace."""
ROOM, NOISE = "small room", "background noise"
"""What a clip may be said to have around the voice."""
_ROOMS = ("in a reverberant room", "in a small, echoing room", "with some room echo")
_DRY = ("close to the microphone", "in a dry recording", "without any echo")
_NOISES = ("over faint background noise", "with a little background noise")


def spoken_captions(
    speaker: Speaker, manner: str, surroundings: tuple[str, ...], rng: np.random.Generator
) -> tuple[str, str]:
    """Two captions of a clip: one describes the voice, the other names the speaker.

    Args:
        speaker: Speaker of the clip.
        manner: neutral, slow, fast or lively.
        surroundings: `ROOM`, `NOISE`, both or neither.
        rng: Draws the wording.
    """
    around = _around(surroundings, rng)
    how = _how(manner, rng)
    who = f"{_article(speaker.accent)} {_PERSON[speaker.sex]}"
    voice = f"{_article(speaker.timbre)} voice"
    language = "" if speaker.language == "en" else f" {language_name(speaker.language)}"
    full = (
        f"{who} with {voice} speaks{language}{how}{around}",
        f"{who} speaks{language}{how} in {voice}{around}",
        f"{voice} of {who}, speaking{language}{how}{around}",
    )[int(rng.integers(3))]
    name = speaker.name.capitalize()
    named = (
        f"{name} speaks{how}{around}",
        f"{name}, {who}, speaks{how}",
        f"the voice of {name}, {voice}{around}",
        f"{name} with {voice} speaks{how}{around}",
    )[int(rng.integers(4))]
    return _sentence(full), _sentence(named)


def _how(manner: str, rng: np.random.Generator) -> str:
    if manner in PACES:
        return f" {PACES[manner]}"
    if manner == "lively":
        return " in a lively way"
    return ("", "", " at a normal pace")[int(rng.integers(3))]


def _around(surroundings: tuple[str, ...], rng: np.random.Generator) -> str:
    parts = []
    if ROOM in surroundings:
        parts.append(_ROOMS[int(rng.integers(len(_ROOMS)))])
    elif rng.random() < 0.4:
        parts.append(_DRY[int(rng.integers(len(_DRY)))])
    if NOISE in surroundings:
        parts.append(_NOISES[int(rng.integers(len(_NOISES)))])
    return "".join(f" {part}" for part in parts)


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiouAEIO' else 'a'} {words}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
