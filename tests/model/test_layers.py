"""Shared layers: first values, meta device."""

from __future__ import annotations

import pytest
import torch

from model.audiocalm import AudioCALM
from model.config import ExpertConfig
from model.layers import materialise, rms_normalise, shapes_only
from tests.factories.model import LOCAL_HEAD, tiny_config

CONFIGS = {
    "thin": tiny_config(),
    "local": tiny_config(head=LOCAL_HEAD),
    "no expert, no voice": tiny_config(expert=ExpertConfig(placement="none"), speaker_id=None),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_on_the_meta_device_is_materialised_as_if_built_directly(name: str) -> None:
    torch.manual_seed(7)
    expected = AudioCALM(CONFIGS[name]).state_dict()
    with shapes_only():
        model = AudioCALM(CONFIGS[name])
    assert all(value.is_meta for value in model.state_dict().values())
    torch.manual_seed(7)
    materialise(model)
    assert model.state_dict().keys() == expected.keys()
    for key, value in model.state_dict().items():
        assert torch.equal(value, expected[key]), key


def test_normalising_without_gradients_is_the_same() -> None:
    inputs = 3 * torch.randn(2, 5, 64)
    with torch.no_grad():
        given = rms_normalise(inputs, 1e-6)
    torch.testing.assert_close(given, rms_normalise(inputs, 1e-6), atol=1e-6, rtol=1e-6)
