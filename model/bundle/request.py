"""What a user asks for, before any model sees it: checks, defaults and bounds of the length."""

from __future__ import annotations

import dataclasses
import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from model.bundle.limits import Limits
from model.config import MODALITIES
from model.inference.generation import SamplingOptions

SamplingDefaults = Mapping[str, SamplingOptions]
"""Sampling of each modality where a request does not say."""

DEFAULT_SAMPLING: SamplingDefaults = {
    "speech": SamplingOptions(guidance_scale=2.0),
    "sound": SamplingOptions(guidance_scale=3.0),
    "music": SamplingOptions(guidance_scale=4.0),
}
"""Where the bundle does not say either. Guidance w is of v_u + w (v_c - v_u)."""

DEFAULT_DURATION_S = 5.0
"""Duration of sound and music where a request does not say."""

_LANGUAGE = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")
_SECONDS_PER_CHARACTER = 0.15
_SECONDS_PER_WIDE_CHARACTER = 0.5
_SECONDS_AROUND_SPEECH = 2.0
_SINGING_STRETCH = 2.5


class RequestError(ValueError):
    """A request asks for something that cannot be made.

    Attributes:
        field: The part of the request at fault.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(field, message)
        self.field = field
        self.message = message

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


@dataclass(frozen=True, kw_only=True, eq=False)
class SynthesisRequest:
    """One piece of audio, described."""

    description: str
    """What it sounds like: the scene, the style, the voice."""
    transcript: str | None = None
    """Words to speak or sing, verbatim."""
    language: str | None = None
    """BCP 47 tag of the transcript."""
    modality: str | None = None
    """speech, sound or music; None is speech with a transcript and sound without."""
    duration_s: float | None = None
    """Exact duration, seconds; None leaves it to the stop head (speech) or to the default."""
    voice: Float[Tensor, " speaker_dim"] | None = None
    """Speaker embedding of the voice to take on."""
    seed: int = 0
    """Same request, same seed, same audio."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `SamplingOptions` that differ from the bundle's; None is no difference."""
    is_singing: bool = False
    """Whether the transcript is sung."""


def request_of_clip(
    *,
    description: str,
    transcript: str | None,
    language: str | None,
    modality: str,
    duration_s: float,
    is_singing: bool,
    **others: Any,
) -> SynthesisRequest:
    """What a real clip is asked for with, as training read it: its words, or else its duration.

    Args:
        description: One of its descriptions.
        transcript: Its words, spoken or sung; where there are some, the stop head ends the audio.
        language: BCP 47 tag of the words.
        modality: Its modality.
        duration_s: Its duration, seconds; asked for where it has no words.
        is_singing: Whether the words are sung.
        others: Further fields of the request.
    """
    return SynthesisRequest(
        description=description,
        transcript=transcript or None,
        language=language,
        modality=modality,
        duration_s=None if transcript else duration_s,
        is_singing=is_singing and bool(transcript),
        **others,
    )


def modality_of(request: SynthesisRequest) -> str:
    """The modality asked for, or the one that a transcript implies.

    Raises:
        RequestError: If it is unknown, or the transcript contradicts it.
    """
    words = request.transcript is not None
    modality = request.modality or ("speech" if words else "sound")
    if modality not in MODALITIES:
        raise RequestError("modality", f"{modality!r} is not one of {', '.join(MODALITIES)}")
    if modality == "speech" and not words and request.duration_s is None:
        raise RequestError("transcript", "speech needs a transcript, or a duration for babble")
    if request.is_singing and not words:
        raise RequestError("transcript", "singing needs the words to sing")
    return modality


def sampling_defaults(changes: Any) -> SamplingDefaults:
    """The defaults with what a bundle changes of them.

    Args:
        changes: By modality, fields of `SamplingOptions`; as a file says it, so of any type.

    Raises:
        ValueError: If a modality or a field is unknown, or a value out of range.
    """
    is_mapping = isinstance(changes, Mapping)
    if not (is_mapping and all(isinstance(of_one, Mapping) for of_one in changes.values())):
        raise ValueError(f"sampling is {changes!r}; it must map modalities to their fields")
    unknown = sorted(set(changes) - set(DEFAULT_SAMPLING))
    if unknown:
        raise ValueError(f"modality {unknown[0]!r} is not one of {', '.join(DEFAULT_SAMPLING)}")
    return {
        modality: _changed(options, changes.get(modality, {}))
        for modality, options in DEFAULT_SAMPLING.items()
    }


def sampling_of(
    request: SynthesisRequest, limits: Limits, defaults: SamplingDefaults
) -> SamplingOptions:
    """How a request is sampled: the defaults of its modality, and what it changes of them.

    Raises:
        RequestError: If a value is out of range, with the field and the limit.
    """
    try:
        options = _changed(defaults[modality_of(request)], request.sampling)
    except ValueError as error:
        named = [name for name in request.sampling if name in str(error)]
        raise RequestError(named[0] if named else "sampling", str(error)) from error
    _check_range("num_flow_steps", options.num_flow_steps, 1, limits.max_flow_steps)
    _check_range("guidance_scale", options.guidance_scale, 0, limits.max_guidance_scale)
    return options


def _changed(options: SamplingOptions, changes: Mapping[str, Any]) -> SamplingOptions:
    known = {item.name for item in dataclasses.fields(SamplingOptions)}
    unknown = sorted(set(changes) - known)
    if unknown:
        raise ValueError(f"sampling has no {unknown[0]!r}; there is {', '.join(sorted(known))}")
    given = {name: value for name, value in changes.items() if value is not None}
    try:
        return dataclasses.replace(options, **given)
    except TypeError as error:
        raise ValueError(f"sampling {given} is not of numbers: {error}") from error


def reading_time_s(transcript: str) -> float:
    """Seconds a slow reader takes: 0.15 for a letter, 0.5 for a digit or an ideograph, each of
    which is a syllable or more."""
    wide = sum(
        character.isdigit() or unicodedata.east_asian_width(character) in "WF"
        for character in transcript
    )
    narrow = len(transcript) - wide
    return narrow * _SECONDS_PER_CHARACTER + wide * _SECONDS_PER_WIDE_CHARACTER


def speech_bounds_s(transcript: str, *, is_singing: bool = False) -> tuple[float, float]:
    """Shortest and longest time a transcript may take, where the stop head decides between.

    The cap ends a request whose stop is missed; the floor, an eighth of a slow reading, keeps a
    spurious stop at the start from cutting the words off.
    """
    slow_s = reading_time_s(transcript)
    stretch = _SINGING_STRETCH if is_singing else 1.0
    return slow_s / 8, _SECONDS_AROUND_SPEECH + slow_s * stretch


def check_request(request: SynthesisRequest, limits: Limits) -> None:
    """Refuse what is empty, too long or out of range.

    Raises:
        RequestError: With the field, the value and the limit.
    """
    _check_text("description", request.description, limits.max_description_chars)
    if request.transcript is not None:
        _check_text("transcript", request.transcript, limits.max_transcript_chars)
    if request.language is not None and not _LANGUAGE.fullmatch(request.language):
        raise RequestError("language", f"{request.language!r} is no BCP 47 tag, as en or pt-br are")
    if request.duration_s is not None:
        _check_range("duration_s", request.duration_s, limits.min_duration_s, limits.max_duration_s)
    if not 0 <= request.seed < 2**63:
        raise RequestError("seed", f"{request.seed} is outside [0, 2^63)")


def _check_text(field: str, text: str, max_chars: int) -> None:
    if not text.strip():
        raise RequestError(field, "is empty")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise RequestError(field, "holds half of a surrogate pair, which is no character")
    if len(text) > max_chars:
        raise RequestError(field, f"has {len(text)} characters; at most {max_chars} are taken")


def _check_range(field: str, value: int | float, low: int | float, high: int | float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise RequestError(field, f"is {value}; it must be in [{low}, {high}]")
