"""Every value of a request is compared with its limit before anything is computed from it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from model.bundle.limits import (
    AudioRequest,
    Limits,
    RequestError,
    check_range,
    check_request,
    modality_of,
)

HUGE = 10**400


def asked(**changes: Any) -> AudioRequest:
    """A request as a caller without type checks may build it: its values are of any type."""
    request = AudioRequest(description="rain")
    for name, value in changes.items():
        object.__setattr__(request, name, value)
    return request


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
    assert modality_of(asked(**given)) == expected


def test_an_error_says_field_value_and_limit() -> None:
    request = asked(duration_s=7.0)
    with pytest.raises(RequestError) as caught:
        check_request(request, Limits(max_duration_s=6.0))
    assert str(caught.value) == "duration_s: is 7.0; it must be in [0.1, 6.0]"
    assert caught.value.field == "duration_s"
    check_request(request, Limits(max_duration_s=7.0))


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"description": "  "}, "description", "is empty"),
        ({"description": "a" * 2001}, "description", "has 2001 characters; at most 2000"),
        ({"description": "\ud800"}, "description", "surrogate"),
        ({"transcript": ""}, "transcript", "is empty"),
        ({"transcript": "..."}, "transcript", "holds nothing to say"),
        ({"transcript": "a" * 4097}, "transcript", "at most 4096"),
        ({"language": "!!"}, "language", "no BCP 47 tag"),
        ({"duration_s": 0.0}, "duration_s", r"is 0.0; it must be in \[0.1, 120.0\]"),
        ({"duration_s": float("nan")}, "duration_s", "is nan"),
        ({"duration_s": 121.0}, "duration_s", "is 121.0"),
        ({"seed": -1}, "seed", "is -1"),
        ({"modality": "video"}, "modality", "'video' is not one of speech, sound, music"),
        ({"modality": "speech"}, "transcript", "speech needs a transcript"),
        ({"is_singing": True}, "transcript", "singing needs the words"),
        ({"sampling": {"num_flow_steps": 10**400}}, "num_flow_steps", "integer of 1329 bits"),
        ({"sampling": {"num_flow_steps": 3 * 10**8}}, "num_flow_steps", "is 300000000"),
        ({"sampling": {"num_flow_steps": 300}}, "num_flow_steps", "is 300"),
        ({"sampling": {"guidance_scale": 30.0}}, "guidance_scale", "is 30"),
        ({"description": "\u200b\u202e"}, "description", "is empty"),
        ({"transcript": "\u200b"}, "transcript", "is empty"),
        ({"transcript": "\ud83d"}, "transcript", "surrogate"),
        ({"duration_s": HUGE}, "duration_s", "an integer of 1329 bits"),
        ({"duration_s": -HUGE}, "duration_s", "an integer of 1329 bits"),
        ({"duration_s": float("inf")}, "duration_s", "is inf"),
        ({"duration_s": "3"}, "duration_s", "is a str, not a number"),
        ({"duration_s": True}, "duration_s", "is a bool, not a number"),
        ({"seed": 2**63}, "seed", "is 9223372036854775808"),
        ({"seed": 1.5}, "seed", "is a float, not a whole number"),
        ({"speed": 0.2}, "speed", r"is 0.2; it must be in \[0.25, 4.0\]"),
        ({"language": "a-" * 5000}, "language", "no BCP 47 tag"),
        ({"modality": "v" * 10**6}, "modality", "is not one of"),
    ],
)
def test_a_field_out_of_range_is_named_in_few_words(
    changes: dict, field: str, message: str
) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        check_request(asked(**changes), Limits())
    assert caught.value.field == field
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("name", ["num_flow_steps", "guidance_scale"])
@pytest.mark.parametrize(
    "value", [HUGE, -HUGE, 3 * 10**8, float("nan"), float("inf"), -1, "4", [4], True]
)
def test_sampling_beyond_the_limits_is_refused_before_a_grid_is_built(
    name: str, value: object
) -> None:
    with pytest.raises(RequestError) as caught:
        check_request(asked(sampling={name: value}), Limits())
    assert caught.value.field == name


def test_the_limits_themselves_are_allowed() -> None:
    limits = Limits()
    for edge in (limits.min_duration_s, limits.max_duration_s):
        check_range("duration_s", edge, limits.min_duration_s, limits.max_duration_s)
    sampling = {"num_flow_steps": 256, "guidance_scale": 20}
    check_request(asked(duration_s=120, seed=2**63 - 1, sampling=sampling), limits)


def test_words_are_estimated_before_they_are_read() -> None:
    words = "word " * 400
    with pytest.raises(RequestError, match=r"takes about 136 s; at most 120 s"):
        check_request(asked(transcript=words), Limits())
    check_request(asked(transcript=words), Limits(max_speech_s=200.0))
    check_request(asked(transcript=words, duration_s=3.0), Limits())
    sung = asked(transcript=words, modality="music", is_singing=True)
    with pytest.raises(RequestError, match=r"takes about 341 s; at most 120 s"):
        check_request(sung, Limits(max_speech_s=400.0))


def test_the_checks_need_no_torch() -> None:
    code = "import sys, model.bundle.limits; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
