"""What a user asks for, before any model sees it, and how it is sampled."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from model.bundle.limits import (
    MAX_GUIDANCE_SCALE,
    Limits,
    RequestError,
    check_sampling,
    modality_of,
)
from model.inference.generation import SamplingOptions

SamplingDefaults = Mapping[str, SamplingOptions]
"""Sampling of each modality where a request does not say."""

DEFAULT_SAMPLING: SamplingDefaults = {
    "speech": SamplingOptions(guidance_scale=2.0),
    "sound": SamplingOptions(guidance_scale=3.0),
    "music": SamplingOptions(guidance_scale=4.0),
}
"""Where the bundle does not say either. Guidance w is of v_u + w (v_c - v_u)."""


@dataclass(frozen=True, eq=False)
class SpeechPrompt:
    """A recording that generated speech continues.

    Attributes:
        transcript: What is said in it, cleaned.
        latents: The recording as the bundle's codec encodes it, raw.
    """

    transcript: str
    latents: Float[Tensor, "frames latent_dim"]


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
    continues: SpeechPrompt | None = None
    """Recording that the speech continues; the audio holds the new words only."""
    seed: int = 0
    """Same request, same seed, same audio."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `SamplingOptions` that differ from the bundle's; None is no difference."""
    is_singing: bool = False
    """Whether the transcript is sung."""
    speed: float = 1.0
    """Speaking rate beside the one that the model chooses, 0.25 to 4; takes a model that knows the
    speaking rate (`paces_speech`), a transcript and no duration."""


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
    for of_one in changes.values():
        check_sampling(of_one, Limits(max_guidance_scale=MAX_GUIDANCE_SCALE))
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
    check_sampling(request.sampling, limits)
    try:
        options = _changed(defaults[modality_of(request)], request.sampling)
    except ValueError as error:
        named = [name for name in request.sampling if name in str(error)]
        raise RequestError(named[0] if named else "sampling", str(error)) from error
    # The limits hold for what the bundle says as well.
    check_sampling(dataclasses.asdict(options), limits)
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
