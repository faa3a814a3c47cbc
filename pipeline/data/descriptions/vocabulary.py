"""Words for measured values and labels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pipeline.data.descriptions.grammar import article
from pipeline.data.word_files import read_words


@dataclass(frozen=True)
class Scale:
    """Words for the ranges of one measured attribute.

    Attributes:
        slot: Slot that the words fill.
        attribute: Name of the measured value.
        steps: Upper bounds, rising, each with its phrases; no phrases means not worth a word.
        modalities: Modalities that it applies to.
    """

    slot: str
    attribute: str
    steps: tuple[tuple[float, tuple[str, ...]], ...]
    modalities: tuple[str, ...] = ("speech", "sound", "music")

    def words(self, value: float) -> tuple[str, ...]:
        """Phrases for a value."""
        return self.steps[self.step(value)][1]

    def step(self, value: float) -> int:
        """Number of the range that a value lies in; the last one for values that are not finite."""
        return next((n for n, (bound, _) in enumerate(self.steps) if value < bound), -1)


_REST = float("inf")
_ALL_BUT_SPEECH = ("sound", "music")

PITCH_BY_SEX = {
    "male": ((98, "deep"), (145, "medium"), (_REST, "high")),
    "female": ((165, "deep"), (225, "medium"), (_REST, "high")),
    "": ((105, "deep"), (205, "medium"), (_REST, "high")),
}
"""Upper bounds of the median pitch of voices, Hz; relative to the sex where it is known."""
PITCH_WORDS = {
    "deep": ("deep", "low", "low-pitched"),
    "medium": ("medium-pitched",),
    "high": ("high", "high-pitched"),
}
"""Adjectives of a voice that would mean something else about a person."""
PITCH_OF_PERSON = {"deep": ("deep-voiced",)}

SCALES = (
    Scale("level", "level_dbfs", (
        (-42, ("very quiet", "barely audible", "faint")),
        (-30, ("quiet",)),
        (-12, ()),
        (_REST, ("loud",)),
    )),
    Scale("pace", "speaking_rate_syllables_per_s", (
        (2.2, ("very slowly", "at a very slow pace")),
        (3.3, ("slowly", "unhurriedly", "at a slow pace")),
        (4.8, ("at a moderate pace", "at a normal pace", "at a medium speed")),
        (6.0, ("quickly", "briskly", "at a fast pace")),
        (_REST, ("very quickly", "rapidly", "at a very fast pace")),
    ), ("speech",)),
    Scale("pace_adjective", "speaking_rate_syllables_per_s", (
        (3.3, ("slow", "unhurried", "measured")),
        (4.8, ()),
        (_REST, ("fast", "quick", "hurried")),
    ), ("speech",)),
    Scale("tone", "pitch_range_semitones", (
        (2.5, ("in a monotone", "with flat intonation")),
        (4.5, ("with little intonation", "in an even tone", "in a level tone")),
        (7.5, ("with natural intonation", "in a conversational tone")),
        (11, ("with lively intonation", "in an expressive way", "in an animated tone")),
        (_REST, ("in a very expressive way", "in a highly animated way")),
    ), ("speech",)),
    Scale("tone_adjective", "pitch_range_semitones", (
        (2.5, ("monotone", "flat")),
        (4.5, ("fairly flat", "fairly monotone")),
        (7.5, ("natural", "conversational")),
        (_REST, ("expressive", "animated", "lively")),
    ), ("speech",)),
    Scale("pauses", "pause_share", (
        (0.1, ()),
        (0.25, ("with short pauses", "with occasional pauses")),
        (_REST, ("with long pauses", "with many pauses")),
    ), ("speech",)),
    Scale("recording", "snr_db", (
        (10, ("noisy", "very noisy")),
        (20, ("slightly noisy", "somewhat noisy")),
        (38, ()),
        (_REST, ("clean", "very clear")),
    ), ("speech",)),
    Scale("room", "decay_time_s", (
        (0.2, ("in a dry room", "in a small, dry space")),
        (0.65, ()),
        (1.1, ("in a reverberant room", "in an echoing room")),
        (_REST, ("in a large, echoing space", "in a very reverberant hall")),
    ), ("speech",)),
    Scale("recording", "bandwidth_hz", (
        (4300, ("muffled", "telephone-quality")),
        (_REST, ()),
    )),
    Scale("colour", "brightness_hz", (
        (600, ("very dark", "bass-heavy")),
        (1300, ("dark", "warm")),
        (4000, ()),
        (6000, ("bright", "crisp")),
        (_REST, ("very bright", "sharp")),
    ), _ALL_BUT_SPEECH),
    Scale("tempo", "tempo_bpm", (
        (70, ("very slow",)),
        (92, ("slow", "laid-back", "unhurried")),
        (118, ("mid-tempo", "medium-paced")),
        (145, ("fast", "upbeat", "lively")),
        (_REST, ("very fast", "rapid")),
    ), ("music",)),
    Scale("tempo_word", "tempo_bpm", (
        (70, ("very slow",)),
        (92, ("slow",)),
        (118, ("moderate", "medium")),
        (145, ("fast", "quick")),
        (_REST, ("very fast",)),
    ), ("music",)),
    Scale("dynamics", "dynamic_range_db", (
        (2.5, ("at a constant volume", "at a steady level")),
        (20, ()),
        (_REST, ("rising and falling in volume", "with large changes in volume")),
    ), _ALL_BUT_SPEECH),
    Scale("trend", "level_trend_db", (
        (-12, ("dying away", "fading out")),
        (-5, ("getting quieter", "slowly fading")),
        (5, ()),
        (12, ("getting louder", "swelling")),
        (_REST, ("growing steadily louder", "building up from near silence")),
    ), _ALL_BUT_SPEECH),
    Scale("activity", "onset_rate_hz", (
        (0.4, ("continuous", "steady")),
        (2.0, ("intermittent",)),
        (_REST, ()),
    ), ("sound",)),
    Scale("activity", "onset_rate_hz", (
        (0.4, ("sustained", "slow-moving")),
        (2.0, ("sparse",)),
        (6.0, ()),
        (_REST, ("busy",)),
    ), ("music",)),
    Scale("stereo", "stereo_width", (
        (0.02, ("in mono",)),
        (0.15, ()),
        (_REST, ("in wide stereo",)),
    ), _ALL_BUT_SPEECH),
    Scale("tonality", "pitch_median_hz", (
        (110, ("low",)),
        (330, ()),
        (_REST, ("high",)),
    ), ("sound",)),
)  # fmt: skip
"""The words of every measured attribute that has some."""

MIN_BEAT_STRENGTH = 0.25
"""Beat strength below which no tempo is mentioned."""

MIN_KEY_CONFIDENCE = 0.15
"""Confidence of a key below which no key is mentioned."""


@dataclass(frozen=True)
class NounPhrase:
    """A label as it stands in a sentence."""

    text: str
    is_plural: bool


def noun_phrase(label: str) -> NounPhrase:
    """A class label with the article it needs: `a dog`, `an engine`, `rain`, `church bells`."""
    if " and " in label:
        parts = [noun_phrase(part).text for part in label.split(" and ")]
        return NounPhrase(" and ".join(parts), is_plural=True)
    words = re.split(r" (?:of|in|on|with|at|from|over) ", label)[0].lower().split()
    head, known = words[-1], _nouns()
    is_plural = head in known["plural_without_s"] or (
        head.endswith("s") and not head.endswith("ss") and head not in known["singular_with_s"]
    )
    # Brushing teeth is one thing, barking dogs are many; only the verb tells them apart.
    is_action = is_plural and words[0] in known["transitive"]
    is_plural = is_plural and not is_action
    has_article = re.match(r"(?:an?|the|some|one|two|several|many) ", label, re.IGNORECASE)
    is_ing = head.endswith("ing") and head not in known["countable_ing"]
    is_bare = has_article or is_plural or is_action or head in known["mass"] or is_ing
    return NounPhrase(label if is_bare else f"{article(label.split()[0])} {label}", is_plural)


@cache
def _nouns() -> Mapping[str, frozenset[str]]:
    found = read_words(Path(__file__).parent / "nouns.yaml")
    return {name: frozenset(words) for name, words in found.items()}
