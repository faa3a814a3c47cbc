"""A request is checked without torch: every value against its limit, and nothing computed first."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

import pytest

from model.bundle.limits import Limits, RequestError, check_range, check_request, modality_of

HUGE = 10**400


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request as another process may send it: its values are of any type."""

    description: Any = "rain"
    transcript: Any = None
    language: Any = None
    modality: Any = None
    duration_s: Any = None
    is_singing: Any = False
    speed: Any = 1.0
    seed: Any = 0
    sampling: Any = field(default_factory=dict)


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
    assert modality_of(Asked(**given)) == expected


def test_an_error_says_field_value_and_limit() -> None:
    request = Asked(duration_s=7.0)
    with pytest.raises(RequestError) as caught:
        check_request(request, Limits(max_duration_s=6.0))
    assert str(caught.value) == "duration_s: is 7.0; it must be in [0.1, 6.0]"
    assert caught.value.field == "duration_s"
    check_request(request, Limits(max_duration_s=7.0))


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"duration_s": HUGE}, "duration_s"),
        ({"duration_s": -HUGE}, "duration_s"),
        ({"duration_s": float("inf")}, "duration_s"),
        ({"duration_s": float("nan")}, "duration_s"),
        ({"duration_s": "3"}, "duration_s"),
        ({"duration_s": True}, "duration_s"),
        ({"seed": HUGE}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"speed": 0.2}, "speed"),
        ({"speed": "fast"}, "speed"),
        ({"language": "a" * 5000}, "language"),
        ({"language": "a-" * 5000}, "language"),
        ({"transcript": "\u200b"}, "transcript"),
        ({"transcript": "\ud83d"}, "transcript"),
        ({"description": "\u200b\u202e"}, "description"),
        ({"modality": "v" * 10**6}, "modality"),
    ],
)
def test_a_field_out_of_range_is_named_in_few_words(changes: dict, name: str) -> None:
    with pytest.raises(RequestError) as caught:
        check_request(Asked(**changes), Limits())
    assert caught.value.field == name
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    "name",
    [
        "num_flow_steps",
        "first_flow_steps",
        "guidance_scale",
        "guidance_rescale",
        "sde_temperature",
        "temperature",
        "stop_threshold",
        "grid_shift",
    ],
)
@pytest.mark.parametrize(
    "value", [HUGE, -HUGE, 3 * 10**8, float("nan"), float("inf"), -1, "4", [4], True]
)
def test_sampling_out_of_range_is_refused_before_a_grid_is_built(name: str, value: object) -> None:
    with pytest.raises(RequestError) as caught:
        check_request(Asked(sampling={name: value}), Limits())
    assert caught.value.field == name


@pytest.mark.parametrize("value", [3, [0.1], [0.9, 0.1], [0, HUGE], [float("nan"), 1], "ab"])
def test_a_guidance_interval_is_two_flow_times_in_order(value: object) -> None:
    with pytest.raises(RequestError, match="guidance_interval"):
        check_request(Asked(sampling={"guidance_interval": value}), Limits())


def test_the_limits_themselves_are_allowed() -> None:
    limits = Limits()
    for edge in (limits.min_duration_s, limits.max_duration_s):
        check_range("duration_s", edge, limits.min_duration_s, limits.max_duration_s)
    sampling = {"num_flow_steps": 256, "guidance_scale": 20, "guidance_interval": (0, 1)}
    check_request(Asked(duration_s=120, seed=2**63 - 1, sampling=sampling), limits)


def test_words_are_estimated_before_they_are_read() -> None:
    words = "word " * 400
    with pytest.raises(RequestError, match=r"takes about 136 s; at most 120 s"):
        check_request(Asked(transcript=words), Limits())
    check_request(Asked(transcript=words), Limits(max_speech_s=200.0))
    check_request(Asked(transcript=words, duration_s=3.0), Limits())


def test_the_checks_need_no_torch() -> None:
    code = "import sys, model.bundle.limits; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
