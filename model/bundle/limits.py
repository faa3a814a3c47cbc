"""Limits of one request, and the checks that need no model.

Every value is compared with its limit before anything is computed or allocated from it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from model.bundle.reading import LONGEST_PART_S, expected_s, has_words
from model.config import MODALITIES
from model.text import clean_text

_LANGUAGE = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")
_MAX_LANGUAGE_CHARS = 35
_MAX_SHOWN = 80
"""Characters of a value, or bits of an integer, that an error repeats."""

MAX_TEXT_CHARS = 100_000
"""Upper bound of any limit of a text, characters."""
DEFAULT_SPEECH_DESCRIPTION = "A person speaks clearly in a quiet room."
"""Description of speech where a request gives none."""
DEFAULT_DURATION_S = 5.0
"""Duration of sound and music where a request gives none, seconds."""
SPEED_RANGE = (0.25, 4.0)
"""Speaking rates beside the one that the model chooses, those of OpenAI's speech endpoint."""
MAX_EMBEDDING_VALUE = 1000.0
"""Largest magnitude in a speaker embedding; those of speaker encoders stay far below it."""


class RequestError(ValueError):
    """A request is out of range or contradicts itself.

    Attributes:
        field: The part of the request at fault.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(field, message)
        self.field = field
        self.message = message

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


@dataclass(frozen=True)
class Limits:
    """Limits of one request.

    Attributes:
        max_description_chars: Characters of a description.
        max_transcript_chars: Characters of a transcript.
        min_duration_s: Shortest audio, seconds.
        max_duration_s: Longest audio made in one go, seconds; also caps each part of a long text
            that does not stop by itself.
        max_flow_steps: Solver steps for each block.
        max_guidance_scale: Guidance.
        max_speech_s: Longest speech of one request, as its text is expected to take, seconds;
            None is `max_duration_s`. Beyond one part, text is read sentence by sentence.
    """

    max_description_chars: int = 2000
    max_transcript_chars: int = 4096
    min_duration_s: float = 0.1
    max_duration_s: float = 120.0
    max_flow_steps: int = 256
    max_guidance_scale: float = 20.0
    max_speech_s: float | None = None

    @property
    def longest_speech_s(self) -> float:
        """Longest speech of one request, seconds."""
        return self.max_duration_s if self.max_speech_s is None else self.max_speech_s

    @property
    def longest_part_s(self) -> float:
        """Expected duration of a text that is read in one go; a slow voice takes twice as long."""
        return min(LONGEST_PART_S, self.max_duration_s / 2)


@dataclass(frozen=True, kw_only=True, eq=False)
class AudioRequest:
    """Description of one piece of audio, in values that are checked without a model."""

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
    is_singing: bool = False
    """Whether the transcript is sung."""
    speed: float = 1.0
    """Speaking rate relative to the one that the model chooses, 0.25 to 4; needs a model that knows
    the speaking rate (`paces_speech`), a transcript and no duration."""
    seed: int = 0
    """Same request, same seed, same audio."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `SamplingOptions` that differ from the bundle's; None is no difference."""


def check_request(request: AudioRequest, limits: Limits) -> None:
    """Raise `RequestError` if a field is empty, too long or out of range."""
    _check_text("description", request.description, limits.max_description_chars)
    if request.transcript is not None:
        check_words("transcript", request.transcript, limits.max_transcript_chars)
    language = request.language
    if language is not None and not (
        len(language) <= _MAX_LANGUAGE_CHARS and _LANGUAGE.fullmatch(language)
    ):
        raise RequestError("language", f"{_shown(language)} is no BCP 47 tag, as en or pt-br are")
    if request.duration_s is not None:
        check_range("duration_s", request.duration_s, limits.min_duration_s, limits.max_duration_s)
    check_range("speed", request.speed, *SPEED_RANGE)
    check_integer("seed", request.seed, 0, 2**63 - 1)
    check_sampling(request.sampling, limits)
    modality_of(request)
    _check_reading(request, limits)


def modality_of(request: AudioRequest) -> str:
    """The modality of a request, given or implied by its transcript.

    Raises `RequestError` if it is unknown, or the transcript contradicts it.
    """
    words = request.transcript is not None
    modality = request.modality or ("speech" if words else "sound")
    if modality not in MODALITIES:
        raise RequestError("modality", f"{_shown(modality)} is not one of {', '.join(MODALITIES)}")
    if modality == "speech" and not words and request.duration_s is None:
        raise RequestError("transcript", "speech needs a transcript, or a duration for babble")
    if request.is_singing and not words:
        raise RequestError("transcript", "singing needs the words to sing")
    return modality


def is_split(request: AudioRequest) -> bool:
    """Whether the transcript may be read in parts: speech whose duration the model decides."""
    words = request.transcript is not None and request.duration_s is None
    return words and not request.is_singing and modality_of(request) == "speech"


def check_sampling(sampling: Mapping[str, Any], limits: Limits) -> None:
    """Raise `RequestError` on more flow steps or guidance than the limits allow.

    `SamplingOptions` checks the range of every field; this needs no model.
    """
    if (steps := sampling.get("num_flow_steps")) is not None:
        check_integer("num_flow_steps", steps, 1, limits.max_flow_steps)
    if (scale := sampling.get("guidance_scale")) is not None:
        check_range("guidance_scale", scale, 0, limits.max_guidance_scale)


def check_words(field: str, text: str, max_chars: int) -> None:
    """Raise `RequestError` if a text is empty, too long, or holds no letter and no digit."""
    _check_text(field, text, max_chars)
    if not has_words(text):
        raise RequestError(field, f"{_shown(text)} holds nothing to say: no letter and no digit")


def check_integer(field: str, value: object, low: int, high: int) -> None:
    """Raise `RequestError` unless a value is an integer in [low, high]."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise RequestError(field, f"is a {type(value).__name__}, not a whole number")
    if not low <= value <= high:
        raise RequestError(field, f"is {_number(value)}; it must be in [{low}, {high}]")


def check_range(field: str, value: object, low: int | float, high: int | float) -> None:
    """Raise `RequestError` unless a value is a finite number in [low, high]."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise RequestError(field, f"is a {type(value).__name__}, not a number")
    # Integers are compared as they are: a huge one has no float.
    if (isinstance(value, float) and not math.isfinite(value)) or not low <= value <= high:
        raise RequestError(field, f"is {_number(value)}; it must be in [{low}, {high}]")


def _check_text(field: str, text: str, max_chars: int) -> None:
    """Raise `RequestError` if a text is empty, too long or not Unicode."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise RequestError(field, "holds half of a surrogate pair, which is no character")
    if len(text) > max_chars:
        raise RequestError(field, f"has {len(text)} characters; at most {max_chars} are taken")
    if not clean_text(text)[0]:
        raise RequestError(field, "is empty")


def _check_reading(request: AudioRequest, limits: Limits) -> None:
    """Raise if the words take longer to read or sing than the audio may last."""
    if request.transcript is None or request.duration_s is not None:
        return
    longest_s = limits.longest_speech_s if is_split(request) else limits.max_duration_s
    estimate_s = expected_s(clean_text(request.transcript)[0], is_singing=request.is_singing)
    estimate_s /= request.speed
    if estimate_s > longest_s:
        raise RequestError(
            "transcript",
            f"takes about {estimate_s:.0f} s; at most {longest_s:g} s are made in one request: "
            "send it in several",
        )


def _number(value: int | float) -> str:
    """A number as an error shows it; Python refuses to print integers of thousands of digits."""
    if isinstance(value, int) and value.bit_length() > _MAX_SHOWN:
        return f"an integer of {value.bit_length()} bits"
    return str(value)


def _shown(text: str) -> str:
    return repr(text[:_MAX_SHOWN])
