"""The request of a user with its tensors, and its sampling options."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from model.bundle.limits import (
    AudioRequest,
    Limits,
    RequestError,
    check_sampling,
    modality_of,
)
from model.inference.generation import SamplingOptions

SamplingDefaults = Mapping[str, SamplingOptions]
"""Default sampling options of each modality."""

DEFAULT_SAMPLING: SamplingDefaults = {
    "speech": SamplingOptions(guidance_scale=2.0),
    "sound": SamplingOptions(guidance_scale=3.0),
    "music": SamplingOptions(guidance_scale=4.0),
}
"""Defaults of a bundle without its own. Guidance is the w of v_u + w (v_c - v_u)."""


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
class SynthesisRequest(AudioRequest):
    """A described piece of audio, with the tensors that the model needs."""

    voice: Float[Tensor, " speaker_dim"] | None = None
    """Speaker embedding of the voice to take on."""
    continues: SpeechPrompt | None = None
    """Recording that the speech continues; the audio holds the new words only."""


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
    """The request that describes a real clip in the form of training: by its words, or without
    words by its duration. `others` are further fields of the request."""
    return SynthesisRequest(
        description=description,
        transcript=transcript or None,
        language=language,
        modality=modality,
        duration_s=None if transcript else duration_s,
        is_singing=is_singing and bool(transcript),
        **others,
    )


def sampling_defaults(
    changes: Any, defaults: SamplingDefaults = DEFAULT_SAMPLING
) -> SamplingDefaults:
    """Defaults with the changes of a bundle or an endpoint.

    Args:
        changes: Fields of `SamplingOptions` by modality; read from a file, so of any type.
        defaults: What is changed.

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
        for modality, options in defaults.items()
    }


def sampling_of(
    request: SynthesisRequest, limits: Limits, defaults: SamplingDefaults
) -> SamplingOptions:
    """Sampling options of a request: the defaults of its modality with its own changes.

    Raises:
        RequestError: If a value is out of range, with the field and the limit.
    """
    try:
        options = _changed(defaults[modality_of(request)], request.sampling)
    except ValueError as error:
        named = [name for name in request.sampling if name in str(error)]
        raise RequestError(named[0] if named else "sampling", str(error)) from error
    check_sampling(vars(options), limits)
    return options


def _changed(options: SamplingOptions, changes: Mapping[str, Any]) -> SamplingOptions:
    """Options with some fields replaced; None leaves a field as it is."""
    known = {item.name for item in dataclasses.fields(SamplingOptions)}
    unknown = sorted(set(changes) - known)
    if unknown:
        raise ValueError(f"sampling has no {unknown[0]!r}; there is {', '.join(sorted(known))}")
    given = {name: value for name, value in changes.items() if value is not None}
    return dataclasses.replace(options, **given)
