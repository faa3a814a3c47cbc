"""Sampling options out of range are refused with the value."""

from __future__ import annotations

from typing import Any

import pytest
from jaxtyping import TypeCheckError

from model.inference.generation import SamplingOptions


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_flow_steps": 0}, "num_flow_steps is 0"),
        ({"guidance_scale": -1.0}, "guidance_scale is -1.0"),
        ({"temperature": 5.0}, "temperature is 5.0"),
        ({"stop_threshold": 1.5}, "stop_threshold is 1.5"),
    ],
)
def test_bad_options_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeCheckError), match=message):
        SamplingOptions(**changes)
