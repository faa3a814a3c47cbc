"""What a user may ask for: modality, defaults, bounds of the length, and errors by field."""

from __future__ import annotations

import math

import pytest

from model.bundle.limits import Limits, RequestError, check_request, modality_of
from model.bundle.request import (
    DEFAULT_SAMPLING,
    SynthesisRequest,
    request_of_clip,
    sampling_defaults,
    sampling_of,
)


@pytest.mark.parametrize("transcript", ["la la", None, ""])
@pytest.mark.parametrize(("modality", "is_singing"), [("speech", False), ("music", True)])
def test_a_clip_is_asked_for_with_its_words_or_its_duration(
    transcript: str | None, modality: str, is_singing: bool
) -> None:
    request = request_of_clip(
        description="a voice",
        transcript=transcript,
        language="it",
        modality=modality,
        duration_s=3.0,
        is_singing=is_singing,
        seed=7,
    )
    check_request(request, Limits())
    assert modality_of(request) == modality
    assert request.transcript == (transcript or None)
    assert request.duration_s == (None if transcript else 3.0)
    assert request.is_singing == (is_singing and bool(transcript))
    assert (request.language, request.seed) == ("it", 7)


def test_each_modality_has_its_sampling() -> None:
    scales = {modality: options.guidance_scale for modality, options in DEFAULT_SAMPLING.items()}
    assert scales == {"speech": 2.0, "sound": 3.0, "music": 4.0}
    request = SynthesisRequest(
        description="a waltz",
        modality="music",
        sampling={"num_flow_steps": 5, "guidance_scale": None},
    )
    options = sampling_of(request, Limits(), DEFAULT_SAMPLING)
    assert (options.num_flow_steps, options.guidance_scale) == (5, 4.0)


def test_a_bundle_changes_the_sampling_of_its_modalities() -> None:
    changed = sampling_defaults({"sound": {"num_flow_steps": 4, "temperature": 0.5}})
    assert changed["sound"].num_flow_steps == 4
    assert changed["sound"].temperature == 0.5
    assert changed["sound"].guidance_scale == 3.0
    assert changed["speech"] == DEFAULT_SAMPLING["speech"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise": {"num_flow_steps": 4}}, "'noise' is not one of speech, sound, music"),
        ({"sound": {"num_steps": 4}}, "no 'num_steps'; there is .*num_flow_steps"),
        ({"sound": {"num_flow_steps": 0}}, "num_flow_steps is 0"),
        ({"sound": {"num_flow_steps": True}}, "num_flow_steps is True; it must be an integer"),
        ({"sound": {"guidance_scale": math.nan}}, "guidance_scale is nan"),
        ({"sound": 4}, "must map modalities"),
        (["sound"], "must map modalities"),
    ],
)
def test_sampling_that_a_bundle_cannot_have(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sampling_defaults(changes)


@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        ({"num_flow_steps": 4, "guidance_scale": -1.0}, "guidance_scale"),
        ({"temperature": 5.0}, "temperature"),
        ({"num_steps": 4}, "num_steps"),
    ],
)
def test_sampling_out_of_range_names_the_field(sampling: dict, field: str) -> None:
    request = SynthesisRequest(description="rain", sampling=sampling)
    with pytest.raises(RequestError, match=field) as caught:
        sampling_of(request, Limits(), DEFAULT_SAMPLING)
    assert caught.value.field == field
