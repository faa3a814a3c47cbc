"""Speech of the starter corpus: composed texts, stable voices, natural variation, true labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.data.starter import dsp
from pipeline.data.starter.espeak import Espeak
from pipeline.data.starter.lexicon import LEXICONS
from pipeline.data.starter.sentences import KINDS, compose
from pipeline.data.starter.settings import StarterSettings, generator
from pipeline.data.starter.voices import SPEAKERS, Speaker

ENGLISH_SHARE = {"digit": 0.7, "letter": 0.6}
"""Share of English by kind of text; digits are mostly English, since they are measured first."""
_OTHER_ENGLISH_SHARE = 0.4
_LETTER_SHARE = 0.04
_SMALLEST_REST_S = 0.35
_FLOOR_DBFS = (-60.0, -54.0)  # of a quiet room; digital silence is not how recordings sound


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """One spoken clip with what is true of it.

    Attributes:
        name: Stable name of the clip.
        wave: Mono, at the engine's rate.
        sample_rate: Hz.
        transcript: Words spoken.
        kind: Kind of text.
        speaker: Who speaks.
        style: Manner and room, comma separated.
    """

    name: str
    wave: dsp.Wave
    sample_rate: int
    transcript: str
    kind: str
    speaker: Speaker
    style: str


def utterances(settings: StarterSettings) -> Iterator[Utterance]:
    """Clips until the seconds of speech are reached; the same only in a fresh process.

    Raises:
        SpeechEngineError: If the speech library cannot be loaded.
    """
    budget_s = settings.budget_s("speech")
    if budget_s <= 0:
        return
    shares = _shares(settings.digit_share)
    spent: dict[str, float] = dict.fromkeys(shares, 0.0)
    voices = _VoiceDeck(settings)
    with Espeak(seed=settings.seed + 1) as engine:
        index = 0
        while (rest_s := budget_s - sum(spent.values())) > _SMALLEST_REST_S:
            done = sum(spent.values())
            kind = max(shares, key=lambda name: shares[name] * (done + 2) - spent[name])
            if rest_s < 4:  # a sentence could overshoot; single words close the gap
                kind = "digit" if shares["digit"] else "letter"
            utterance = _speak(engine, settings, index, kind, voices)
            spent[kind] += len(utterance.wave) / engine.sample_rate
            index += 1
            yield utterance


def _shares(digit_share: float) -> dict[str, float]:
    letters = min(_LETTER_SHARE, 1 - digit_share)
    rest = (1 - digit_share - letters) / (len(KINDS) + 1)
    shares = {"digit": digit_share, "letter": letters} | dict.fromkeys(KINDS, rest)
    shares["statement"] += rest
    return shares


class _VoiceDeck:
    """Deals speakers and digits so that every voice says every digit before any repeats."""

    def __init__(self, settings: StarterSettings) -> None:
        self._rng = generator(settings, "deck")
        self._decks: dict[str, list[tuple[Speaker, int]]] = {}

    def deal(self, kind: str) -> tuple[Speaker, int]:
        """A speaker for a kind of text, and the digit to say if it is one."""
        english = self._rng.random() < ENGLISH_SHARE.get(kind, _OTHER_ENGLISH_SHARE)
        name = f"{'digit' if kind == 'digit' else 'text'}-{english}"
        deck = self._decks.setdefault(name, [])
        if not deck:
            group = [who for who in SPEAKERS if (who.language == "en") == english]
            values = range(10) if kind == "digit" else range(1)
            cards = [(who, value) for who in group for value in values]
            deck += [cards[place] for place in self._rng.permutation(len(cards))]
        return deck.pop()


def _speak(
    engine: Espeak, settings: StarterSettings, index: int, kind: str, voices: _VoiceDeck
) -> Utterance:
    rng = generator(settings, "speech", index)
    speaker, digit = voices.deal(kind)
    text = compose(kind, speaker.language, rng)
    if kind == "digit":
        text = LEXICONS[speaker.language].digits[digit]
    single = kind in ("digit", "letter")
    manner, rate = _manner(rng, single)
    wave = engine.say(
        text,
        speaker.voice,
        words_per_minute=int(np.clip(speaker.words_per_minute * rate, 80, 320)),
        pitch=int(np.clip(speaker.pitch + rng.integers(-4, 5), 0, 100)),
        pitch_range=int(np.clip(speaker.pitch_range * (1.5 if manner == "lively" else 1), 0, 100)),
    )
    wave, place = _in_place(wave, rng, engine.sample_rate, 0.1 if single else 0.25)
    return Utterance(
        name=f"{speaker.language}_{speaker.name}_{index:05d}",
        wave=wave,
        sample_rate=engine.sample_rate,
        transcript=text,
        kind=kind,
        speaker=speaker,
        style=", ".join(word for word in (manner, place) if word),
    )


def _manner(rng: np.random.Generator, single: bool) -> tuple[str, float]:
    """How it is said, and the rate it means; single words are not labelled fast or slow."""
    draw = rng.random()
    if single:
        return ("neutral", float(rng.uniform(0.92, 1.15)))
    if draw < 0.15:
        return ("slow", float(rng.uniform(0.72, 0.8)))
    if draw < 0.3:
        return ("fast", float(rng.uniform(1.3, 1.5)))
    if draw < 0.45:
        return ("lively", float(rng.uniform(1.0, 1.1)))
    return ("neutral", float(rng.uniform(0.93, 1.07)))


def _in_place(
    wave: dsp.Wave, rng: np.random.Generator, rate: int, room_share: float
) -> tuple[dsp.Wave, str]:
    """Silence around the words, a room for a share of the clips, a faint floor, a level."""
    active = np.flatnonzero(np.abs(wave) > 0.004)
    wave = wave[active[0] : active[-1] + 1] if len(active) else wave
    head, tail = rng.uniform(0.06, 0.16), rng.uniform(0.12, 0.3)
    place = ""
    if rng.random() < room_share:
        place, tail = "small room", tail + 0.2
    wave = np.pad(wave, (dsp.samples(head, rate), dsp.samples(tail, rate)))
    if place:
        wave = dsp.room(
            wave, rng, float(rng.uniform(0.25, 0.5)), float(rng.uniform(0.3, 0.5)), rate
        )
    wave = dsp.to_level(wave, float(rng.uniform(-24, -18)))
    wave += 10 ** (float(rng.uniform(*_FLOOR_DBFS)) / 20) * rng.standard_normal(len(wave))
    return dsp.fade(wave, 0.005, 0.02, rate), place
