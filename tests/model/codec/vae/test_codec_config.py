from __future__ import annotations

import json

import pytest

from model.codec.registry import codec_preset
from model.codec.vae.codec_config import CODEC_PRESETS, codec_config_from_dict
from model.config import PRESETS
from tests.factories.codec import PRINCIPAL, codec_config


@pytest.mark.parametrize("name", CODEC_PRESETS)
def test_presets_survive_json(name: str) -> None:
    values = json.loads(json.dumps(codec_preset(name)))
    assert values.pop("name") == "vae"
    assert codec_config_from_dict(values) == CODEC_PRESETS[name]


def test_preset_rates_are_those_of_the_models_they_serve() -> None:
    assert CODEC_PRESETS["tiny"].timebase.frame_rate == 25
    assert CODEC_PRESETS["tiny"].latent_dim == PRESETS["tiny"].latent_dim
    paper = CODEC_PRESETS["paper"]
    assert (paper.timebase.hop_length, paper.num_channels) == (4096, 2)
    assert paper.latent_dim == PRESETS["1.7b"].latent_dim


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_channels": 3}, "num_channels is 3"),
        ({"channels": [8]}, "1 channels for 1 strides"),
        ({"strides": [0]}, "strides"),
        ({"stem_kernel": 2}, "stem_kernel 2 is below stem_stride 4"),
        ({"hidden_dim": 18, "num_heads": 4}, "does not split"),
        ({"head_hop": 7}, "does not divide"),
        ({"head_window": 15}, "head_window 15"),
        ({"latent_dim": 0}, "latent_dim is 0"),
        ({"stem": "fourier"}, "fourier"),
        ({"head_phase": "wild"}, "wild"),
        ({**PRINCIPAL, "principal_bands": 0}, "principal_bands is 0"),
        ({**PRINCIPAL, "latent_dim": 3}, "more than the 3 latents of pitch"),
        ({**PRINCIPAL, "stem": "convolution"}, "stride 10, kernel 40"),
        ({**PRINCIPAL, "head_window": 80}, r"kernel 80; the stem is \('spectrum', 10, 40\)"),
        ({"colour": 1}, "colour"),
    ],
)
def test_wrong_shapes_are_refused_with_the_value(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        codec_config(**changes)


def test_missing_field_is_refused() -> None:
    with pytest.raises(ValueError, match="not a codec configuration"):
        codec_config_from_dict({"sample_rate": 4000})


def test_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="tiny, small, paper"):
        codec_preset("huge")
