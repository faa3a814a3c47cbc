"""Sampling options out of range are refused with the value."""

from __future__ import annotations

from typing import Any

import pytest

from model.sampling import SamplingOptions


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_flow_steps": 0}, "num_flow_steps is 0"),
        ({"guidance_scale": -1.0}, "guidance_scale -1.0"),
        ({"temperature": 5.0}, "temperature 5.0"),
        ({"stop_threshold": 1.0}, "stop_threshold 1.0"),
        ({"grid_shift": 0.0}, "grid_shift is 0.0"),
        ({"sde_temperature": -0.1}, "sde_temperature -0.1"),
        ({"guidance_rescale": 1.1}, "guidance_rescale 1.1"),
        ({"first_flow_steps": 0}, "first_flow_steps is 0"),
        ({"guidance_interval": (0.6, 0.5)}, "guidance_interval \\(0.6, 0.5\\)"),
        ({"guidance_interval": (0.0, 1.5)}, "guidance_interval \\(0.0, 1.5\\)"),
    ],
)
def test_bad_options_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamplingOptions(**changes)
