"""Speech of the starter corpus: composed texts, stable voices, natural variation, true labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import cycle

import numpy as np

from pipeline.data.starter import dsp
from pipeline.data.starter.engine import Manner, SpeechEngine
from pipeline.data.starter.espeak import Espeak
from pipeline.data.starter.flite import Flite
from pipeline.data.starter.lexicon import grammar_of
from pipeline.data.starter.open_sentences import read_sentences
from pipeline.data.starter.sentences import Kind, compose
from pipeline.data.starter.settings import (
    Language,
    SpeechSettings,
    StarterSettings,
    generator,
    positive,
)
from pipeline.data.starter.spoken_captions import NOISE, ROOM, spoken_captions
from pipeline.data.starter.voices import SPEAKERS, Speaker

_TYPICAL_S: dict[Kind, float] = {
    "digit": 0.7,
    "letter": 0.7,
    "word": 0.8,
    "number": 1.3,
    "phrase": 1.4,
    "digits": 1.9,
    "time": 1.9,
    "sentence": 2.6,
    "open": 3.0,
}
_SINGLE: tuple[Kind, ...] = ("digit", "letter", "word")
_FLITE_PART_S = 480.0
_FLOOR_DBFS = (-60.0, -54.0)  # of a quiet room; digital silence is not how recordings sound
_NOISE_DBFS = (-46.0, -40.0)


@dataclass(frozen=True, kw_only=True)
class SpeechPart:
    """A part of the speech that one process makes.

    Attributes:
        engine: `espeak` or `flite`.
        languages: Weights, adding up to 1.
        budget_s: Seconds to speak.
        index: Place among the parts of the engine.
        count: Number of these parts.
    """

    engine: str
    languages: Mapping[Language, float]
    budget_s: float
    index: int = 0
    count: int = 1


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """One spoken clip with what is true of it.

    Attributes:
        name: Stable name of the clip.
        wave: Mono, at the engine's rate.
        sample_rate: Hz.
        transcript: Words spoken.
        kind: Kind of text.
        speaker: Speaker of the utterance.
        style: Manner, accent and surroundings, comma separated.
        captions: Sentences about the clip.
    """

    name: str
    wave: dsp.Wave
    sample_rate: int
    transcript: str
    kind: Kind
    speaker: Speaker
    style: str
    captions: tuple[str, ...]


def plan_speech(settings: StarterSettings) -> list[SpeechPart]:
    """Parts that together are the speech: one of eSpeak NG, which keeps state, many of Flite.

    Raises:
        SettingsError: If the file of sentences cannot be read or holds none.
        SpeechEngineError: If a requested engine is not installed.
    """
    budget_s = settings.budget_s("speech")
    if budget_s <= 0:
        return []
    speech = settings.speech
    if speech.kinds.get("open") and speech.sentences is not None:
        read_sentences(speech.sentences)
    languages, engines = positive(speech.languages), positive(speech.engines)
    english = languages.get("en", 0.0)
    by_espeak = languages | {"en": english * engines.get("espeak", 0.0)}
    parts = []
    if (share := sum(by_espeak.values())) > 0:
        parts.append(
            SpeechPart(engine="espeak", languages=positive(by_espeak), budget_s=share * budget_s)
        )
    seconds = english * engines.get("flite", 0.0) * budget_s
    if seconds > 0:
        Flite()
        count = max(1, round(seconds / _FLITE_PART_S))
        parts += [
            SpeechPart(
                engine="flite",
                languages={"en": 1.0},
                budget_s=seconds / count,
                index=index,
                count=count,
            )
            for index in range(count)
        ]
    return parts


def utterances(settings: StarterSettings, part: SpeechPart) -> Iterator[Utterance]:
    """Clips until the seconds of the part are reached; the same only in a fresh process.

    Raises:
        SpeechEngineError: If the engine is not there, or refuses a text.
    """
    shares = positive(settings.speech.kinds)
    if "en" not in part.languages:
        shares = positive({name: share for name, share in shares.items() if name != "open"})
    spent = dict.fromkeys(shares, 0.0)
    shortest = min(shares, key=lambda kind: _TYPICAL_S[kind])
    casting = _Casting(settings, part)
    with _opened(part.engine, settings.seed) as engine:
        index = 0
        while (rest_s := part.budget_s - sum(spent.values())) > _TYPICAL_S[shortest] / 2:
            done = part.budget_s - rest_s
            kind = max(shares, key=lambda name: shares[name] * (done + 2) - spent[name])
            if rest_s < 4:  # a sentence could overshoot; the shortest texts close the gap
                kind = shortest
            utterance = _speak(engine, settings, part, index, kind, casting)
            spent[kind] += len(utterance.wave) / engine.sample_rate
            index += 1
            yield utterance


def _opened(engine: str, seed: int) -> AbstractContextManager[SpeechEngine]:
    return Espeak(seed=seed + 1) if engine == "espeak" else nullcontext(Flite())


class _Casting:
    """Deals speakers and texts so that every voice says every digit before any repeats."""

    def __init__(self, settings: StarterSettings, part: SpeechPart) -> None:
        self._rng = generator(settings, "casting", part.engine, part.index)
        self._engine = part.engine
        self._languages = part.languages
        self._decks: dict[tuple[str, bool], list[tuple[Speaker, int]]] = {}
        self._open = cycle(_sentences_of(settings, part))

    def deal(self, kind: Kind) -> tuple[Speaker, str]:
        """A speaker for a kind of text, and the text where it is dealt too; else it is empty."""
        names = list(self._languages)
        language = names[int(self._rng.choice(len(names), p=list(self._languages.values())))]
        if kind == "open":
            language = "en"
        deck = self._decks.setdefault((language, kind == "digit"), [])
        if not deck:
            group = [
                who for who in SPEAKERS if (who.engine, who.language) == (self._engine, language)
            ]
            group = [group[place] for place in self._rng.permutation(len(group))]
            for turn in range(len(group) if kind == "digit" else 1):
                values = self._rng.permutation(10 if kind == "digit" else len(group))
                deck += [(group[(turn + value) % len(group)], int(value)) for value in values]
        speaker, digit = deck.pop()
        if kind == "digit":
            return speaker, grammar_of(language).digits[digit]
        return speaker, next(self._open) if kind == "open" else ""


def _sentences_of(settings: StarterSettings, part: SpeechPart) -> list[str]:
    """Open sentences of a part, in random order: each is in one part of an engine, if it can be."""
    path = settings.speech.sentences
    if path is None or not settings.speech.kinds.get("open"):
        return []
    sentences = read_sentences(path)
    order = generator(settings, "open", part.engine).permutation(len(sentences))
    places = order[part.index :: part.count] if len(sentences) >= part.count else order
    return [sentences[place] for place in places]


def _speak(
    engine: SpeechEngine,
    settings: StarterSettings,
    part: SpeechPart,
    index: int,
    kind: Kind,
    casting: _Casting,
) -> Utterance:
    rng = generator(settings, "speech", part.engine, part.index, index)
    speaker, text = casting.deal(kind)
    text = text or compose(kind, speaker.language, rng)
    manner, pace = _manner(rng, kind in _SINGLE, can_be_lively=speaker.can_be_lively)
    liveliness = 1.5 if manner == "lively" else 1.0
    wave = engine.speak(
        text, speaker, Manner(pace, pitch=float(rng.uniform(0.96, 1.04)), liveliness=liveliness)
    )
    wave, surroundings = _in_place(wave, rng, engine.sample_rate, settings.speech)
    manners = () if manner == "neutral" else (f"{manner} speech",)
    return Utterance(
        name=f"{speaker.language}_{speaker.name}_{part.index:03d}_{index:05d}",
        wave=wave,
        sample_rate=engine.sample_rate,
        transcript=text,
        kind=kind,
        speaker=speaker,
        style=", ".join((f"{speaker.timbre.replace(',', '')} voice", *manners, *surroundings)),
        captions=spoken_captions(speaker, manner, surroundings, rng),
    )


def _manner(rng: np.random.Generator, is_single: bool, *, can_be_lively: bool) -> tuple[str, float]:
    """Manner of an utterance, and its speaking rate; single words are never called fast or slow."""
    draw = rng.random()
    if is_single:
        return ("neutral", float(rng.uniform(0.92, 1.15)))
    if draw < 0.15:
        return ("slow", float(rng.uniform(0.72, 0.8)))
    if draw < 0.3:
        return ("fast", float(rng.uniform(1.3, 1.5)))
    if draw < 0.45 and can_be_lively:
        return ("lively", float(rng.uniform(1.0, 1.1)))
    return ("neutral", float(rng.uniform(0.93, 1.07)))


def _in_place(
    wave: dsp.Wave, rng: np.random.Generator, rate: int, speech: SpeechSettings
) -> tuple[dsp.Wave, tuple[str, ...]]:
    """Silence around the words; room and noise for shares of the clips; a floor; a level."""
    active = np.flatnonzero(np.abs(wave) > 0.004)
    margin = dsp.samples(0.02, rate)  # faint consonants at the edges
    if len(active):
        wave = wave[max(active[0] - margin, 0) : active[-1] + 1 + margin]
    head, tail = rng.uniform(0.06, 0.16), rng.uniform(0.12, 0.3)
    surroundings: tuple[str, ...] = ()
    floor = _FLOOR_DBFS
    if rng.random() < speech.room_share:
        surroundings, tail = (ROOM,), tail + 0.2
    wave = np.pad(wave, (dsp.samples(head, rate), dsp.samples(tail, rate)))
    if surroundings:
        wave = dsp.room(
            wave, rng, float(rng.uniform(0.3, 0.55)), float(rng.uniform(0.4, 0.6)), rate
        )
    wave = dsp.to_level(wave, float(rng.uniform(-24, -18)))
    if rng.random() < speech.noise_share:
        surroundings, floor = (*surroundings, NOISE), _NOISE_DBFS
    wave += 10 ** (float(rng.uniform(*floor)) / 20) * rng.standard_normal(len(wave))
    return dsp.fade(wave, 0.005, 0.02, rate), surroundings
