"""What a user may ask for: modality, defaults, bounds of the length, and errors by field."""

from __future__ import annotations

import pytest

from model.bundle.limits import Limits
from model.bundle.request import (
    DEFAULT_SAMPLING,
    RequestError,
    SynthesisRequest,
    check_request,
    modality_of,
    reading_time_s,
    request_of_clip,
    sampling_defaults,
    sampling_of,
    speech_bounds_s,
)


def test_the_cap_grows_with_what_is_read() -> None:
    assert speech_bounds_s("hello")[1] < speech_bounds_s("hello hello")[1]
    assert speech_bounds_s("1234")[1] > speech_bounds_s("abcd")[1]
    assert speech_bounds_s("你好")[1] > speech_bounds_s("ab")[1]
    assert speech_bounds_s("la la", is_singing=True)[1] > speech_bounds_s("la la")[1]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "sound"),
        ({"transcript": "hi"}, "speech"),
        ({"modality": "music"}, "music"),
        ({"modality": "music", "transcript": "la", "is_singing": True}, "music"),
        ({"modality": "speech", "duration_s": 2.0}, "speech"),
    ],
)
def test_modality(given: dict, expected: str) -> None:
    assert modality_of(SynthesisRequest(description="x", **given)) == expected


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
        ({"sound": {"num_flow_steps": "4"}}, "not of numbers"),
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
        ({"temperature": 5}, "temperature"),
        ({"num_steps": 4}, "num_steps"),
    ],
)
def test_sampling_out_of_range_names_the_field(sampling: dict, field: str) -> None:
    request = SynthesisRequest(description="rain", sampling=sampling)
    with pytest.raises(RequestError, match=field) as caught:
        sampling_of(request, Limits(), DEFAULT_SAMPLING)
    assert caught.value.field == field


def test_reading_time_counts_what_is_a_syllable() -> None:
    assert reading_time_s("") == 0
    assert reading_time_s("ab") == pytest.approx(0.3)
    assert reading_time_s("42") == pytest.approx(1.0)
    shortest_s, longest_s = speech_bounds_s("ab")
    assert (shortest_s, longest_s) == (pytest.approx(0.3 / 8), pytest.approx(2.3))


def test_an_error_says_field_value_and_limit() -> None:
    request = SynthesisRequest(description="rain", duration_s=7.0)
    with pytest.raises(RequestError) as caught:
        check_request(request, Limits(max_duration_s=6.0))
    assert str(caught.value) == "duration_s: is 7.0; it must be in [0.1, 6.0]"
    assert caught.value.field == "duration_s"
    check_request(request, Limits(max_duration_s=7.0))
