"""Settings of the starter corpus, and how its minutes become clips."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

import numpy as np
from pydantic import Field, field_validator, model_validator

from pipeline.data.starter.music.styles import STYLES
from pipeline.data.starter.sentences import Kind
from pipeline.data.starter.sounds.scene import CLASSES
from pipeline.settings import Settings

MODALITIES = ("speech", "sound", "music")
"""Order of the shares, and of everything counted by modality."""


KeyT = TypeVar("KeyT")
Engine = Literal["espeak", "flite"]
Language = Literal["en", "de", "fr", "es", "it", "pt"]
Weight = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]


_KINDS: dict[Kind, float] = {
    "digit": 0.35,
    "digits": 0.05,
    "letter": 0.04,
    "number": 0.06,
    "time": 0.1,
    "phrase": 0.1,
    "sentence": 0.3,
}


def positive(weights: Mapping[KeyT, float]) -> dict[KeyT, float]:
    """The weights above 0, scaled to add up to 1; nothing if there is none."""
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items() if weight > 0}


def _checked(names: tuple[str, ...], known: Iterable[str], what: str) -> tuple[str, ...]:
    """Check that the names are known and differ, and that there is at least one."""
    unknown = sorted(set(names) - set(known))
    if unknown or not names or len(set(names)) < len(names):
        raise ValueError(
            f"{list(names)} must hold each {what} at most once and at least one of "
            f"{', '.join(known)}" + (f"; unknown are {', '.join(unknown)}" if unknown else "")
        )
    return names


def _check_range(kind: str, shortest: float, longest: float) -> None:
    if longest < 2 * shortest:
        raise ValueError(
            f"{kind}.max_s is {longest:g} and must be at least twice {kind}.min_s, "
            f"{2 * shortest:g}, so that any duration can be split into clips"
        )


class SpeechSettings(Settings):
    """Texts and voices of speech. Weights are relative; an entry that is not listed is left out."""

    engines: dict[Engine, Weight] = Field(default={"espeak": 1.0})
    """Weights of the engines that speak English, by duration: `espeak` is part of the package,
    `flite` is Debian's package of that name and much easier to understand. Other languages are
    always spoken by espeak."""
    languages: dict[Language, Weight] = Field(
        default={"en": 0.5, "de": 0.1, "fr": 0.1, "es": 0.1, "it": 0.1, "pt": 0.1}
    )
    """Weights of the languages, by duration."""
    kinds: dict[Kind, Weight] = Field(default=_KINDS)
    """Weights of the kinds of text, by duration: digit, digits, letter, number, time, word, phrase,
    sentence, open. Each becomes a corpus of its own, `speech/<kind>`."""
    sentences: Path | None = None
    """Text file with English sentences of your own, which kind `open` speaks: UTF-8, one or several
    on a line. Digits, abbreviations and acronyms must be written out; other lines are skipped."""
    sentences_licence: str = "LicenseRef-unknown"
    """SPDX id of the licence of that text, which then applies to `speech/open`."""
    room_share: float = Field(default=0.2, ge=0, le=1)
    """Share of the clips that are in a reverberant room, and described so."""
    noise_share: float = Field(default=0.1, ge=0, le=1)
    """Share of the clips with audible background noise, and described so."""

    @field_validator("engines", "languages", "kinds")
    @classmethod
    def _has_weight(cls, weights: dict[str, float]) -> dict[str, float]:
        if not sum(weights.values()) > 0:
            raise ValueError("all weights are 0; at least one must be above")
        return weights

    @model_validator(mode="after")
    def _has_something_to_say(self) -> Self:
        if self.kinds.get("open") and self.sentences is None:
            raise ValueError(
                "kinds asks for open sentences; name a text file with sentences=FILE, "
                "or leave out open"
            )
        if self.kinds.get("open") and not self.languages.get("en"):
            raise ValueError("kinds asks for open sentences, which are English; add languages.en")
        is_only_open = set(positive(self.kinds)) == {"open"}
        if is_only_open and set(positive(self.languages)) != {"en"}:
            raise ValueError(
                "kinds holds only open, which is English; set languages={en: 1} or add a kind"
            )
        return self


class SoundSettings(Settings):
    """Classes and durations of sounds."""

    classes: tuple[str, ...] = tuple(CLASSES)
    """Classes of sound, e.g. rain and dog_bark; all 30 by default."""
    mixed_share: float = Field(default=0.4, ge=0, le=1)
    """Share of the clips with several sounds, half of them in a row, half of them at once."""
    min_s: float = Field(default=2.0, ge=1, le=30)
    """Shortest clip, seconds, 1 to 30."""
    max_s: float = Field(default=8.0, ge=2, le=60)
    """Longest clip, seconds; at least twice the shortest."""

    @field_validator("classes")
    @classmethod
    def _are_known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _checked(names, CLASSES, "class of sound")

    @model_validator(mode="after")
    def _is_splittable(self) -> Self:
        _check_range("sound", self.min_s, self.max_s)
        least_s = max(CLASSES[name].min_s for name in self.classes)
        if least_s > self.max_s:
            longest = max(self.classes, key=lambda name: CLASSES[name].min_s)
            raise ValueError(
                f"sound.max_s is {self.max_s:g} and {longest} needs {least_s:g} s; raise it, or "
                "leave the class out of sound.classes"
            )
        return self


class MusicSettings(Settings):
    """Styles and durations of music."""

    styles: tuple[str, ...] = tuple(STYLES)
    """Styles of music, e.g. techno and march; all 10 by default."""
    min_s: float = Field(default=4.0, ge=4, le=60)
    """Shortest clip, seconds, 4 to 60."""
    max_s: float = Field(default=12.0, ge=8, le=120)
    """Longest clip, seconds; at least twice the shortest."""

    @field_validator("styles")
    @classmethod
    def _are_known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _checked(names, STYLES, "style of music")

    @model_validator(mode="after")
    def _is_splittable(self) -> Self:
        _check_range("music", self.min_s, self.max_s)
        return self


class StarterSettings(Settings):
    """What the starter corpus contains: same settings, same bytes."""

    minutes: float = Field(default=12.0, ge=0.5, le=6000, allow_inf_nan=False)
    """Minutes of audio in all, 0.5 to 6000."""
    seed: int = Field(default=0, ge=0)
    """Seed of every choice, from 0."""
    speech_share: float = Field(default=0.4, ge=0, le=1)
    """Share of the minutes that is speech; the three shares add up to 1."""
    sound_share: float = Field(default=0.3, ge=0, le=1)
    """Share of the minutes that is sound."""
    music_share: float = Field(default=0.3, ge=0, le=1)
    """Share of the minutes that is music."""
    speech: SpeechSettings = SpeechSettings()
    """What is spoken, and by whom."""
    sound: SoundSettings = SoundSettings()
    """Classes and durations of sounds."""
    music: MusicSettings = MusicSettings()
    """Styles and durations of music."""

    @model_validator(mode="after")
    def _is_feasible(self) -> Self:
        total = self.speech_share + self.sound_share + self.music_share
        if abs(total - 1) > 1e-6:
            raise ValueError(
                f"speech_share, sound_share and music_share add up to {total:g}, not 1"
            )
        for kind in ("sound", "music"):
            shortest: float = getattr(self, kind).min_s
            budget = self.budget_s(kind)
            if 0 < budget < shortest:
                raise ValueError(
                    f"{kind}_share leaves {budget:g} s of {kind}, less than one clip of "
                    f"{kind}.min_s {shortest:g} s; raise minutes or set the share to 0"
                )
        return self

    def budget_s(self, modality: str) -> float:
        """Seconds of one modality."""
        share: float = getattr(self, f"{modality}_share")
        return self.minutes * 60 * share


def generator(settings: StarterSettings, *path: int | str) -> np.random.Generator:
    """Random generator of one named choice, independent of every other one.

    Args:
        settings: Settings with the seed of the corpus.
        path: Names and numbers of the choice, e.g. `"sound", 17`.
    """
    words = [part if isinstance(part, int) else int.from_bytes(part.encode()) for part in path]
    return np.random.default_rng([settings.seed, *words])


def clip_durations(
    budget_s: float, shortest_s: float, longest_s: float, rng: np.random.Generator
) -> list[float]:
    """Split seconds into clips of varied durations, whole milliseconds, adding up to the budget.

    Args:
        budget_s: Seconds in all; 0 gives no clip.
        shortest_s: Least duration of a clip.
        longest_s: Most; at least twice the shortest.
        rng: Draws the variation.
    """
    if budget_s <= 0:
        return []
    fewest, most = int(np.ceil(budget_s / longest_s)), int(budget_s // shortest_s)
    typical_s = shortest_s + 0.4 * (longest_s - shortest_s)
    count = int(np.clip(round(budget_s / typical_s), max(1, fewest), max(1, most)))
    durations = rng.uniform(shortest_s, longest_s, count)
    for _ in range(64):
        durations = np.clip(durations + (budget_s - durations.sum()) / count, shortest_s, longest_s)
    return [round(float(duration), 3) for duration in durations]
