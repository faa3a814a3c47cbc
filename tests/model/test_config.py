"""Configurations: round trip, presets of the published shapes, and what they refuse."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from jaxtyping import TypeCheckError

from model.config import PRESETS, ExpertConfig, ModelConfig, model_config_from_dict, preset, to_dict
from model.text import ByteTokenizer


@pytest.mark.parametrize("name", PRESETS)
def test_a_configuration_survives_json(name: str) -> None:
    config = preset(name)
    assert model_config_from_dict(json.loads(json.dumps(to_dict(config)))) == config


def backbone_parameters(config: ModelConfig) -> int:
    b = config.backbone
    attention = b.hidden_dim * b.head_dim * 2 * (b.num_heads + b.num_kv_heads) + 2 * b.head_dim
    layer = attention + 3 * b.hidden_dim * b.ffn_dim + 2 * b.hidden_dim
    return b.num_layers * layer + b.hidden_dim


@pytest.mark.parametrize(
    ("name", "billions"), [("0.6b", 0.44), ("1.7b", 1.4), ("4b", 3.6), ("8b", 6.95)]
)
def test_presets_have_the_published_sizes_without_embedding(name: str, billions: float) -> None:
    """As the cards of the published Qwen3 checkpoints round them."""
    assert backbone_parameters(preset(name)) / 1e9 == pytest.approx(billions, rel=0.011)


def test_the_tiny_preset_speaks_the_byte_tokenizer() -> None:
    tokenizer, config = ByteTokenizer(), preset("tiny")
    assert config.backbone.vocab_size == tokenizer.vocab_size
    assert config.speaker_id == tokenizer.speaker_id


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("backbone", "num_kv_heads"), 3, "num_kv_heads 3 does not divide num_heads 4"),
        (("backbone", "head_dim"), 7, "head_dim 7 is odd"),
        (("backbone", "ffn_dim"), 0, "ffn_dim is 0"),
        (("expert", "placement"), "attn", "placement is 'attn'"),
        (("expert", "ffn_ratio"), 5.0, "ffn_ratio 5.0"),
        (("head", "kind"), "wide", "head kind 'wide'"),
        (("head", "num_layers"), 0, "num_layers is 0"),
        (("frames_per_block",), 0, "frames_per_block is 0"),
        (("speaker_id",), 512, "speaker_id 512 is outside the vocabulary of 512"),
        (("colour",), 1, "unexpected keyword argument 'colour'"),
    ],
)
def test_values_out_of_range_are_refused(path: tuple[str, ...], value: Any, message: str) -> None:
    values = to_dict(preset("tiny"))
    *parents, leaf = path
    target = values
    for parent in parents:
        target = target[parent]
    target[leaf] = value
    # What the annotations already refuse in tests is refused at run time as well.
    with pytest.raises((ValueError, TypeCheckError), match=re.escape(message) + "|Type-check"):
        model_config_from_dict(values)


def test_a_configuration_saved_with_options_that_are_no_more_still_loads() -> None:
    values = {**to_dict(preset("tiny")), "window_blocks": None}
    values["expert"] = {**values["expert"], "attention_rank": 64}
    assert model_config_from_dict(values) == preset("tiny")
    with pytest.raises(ValueError, match="window_blocks"):
        model_config_from_dict({**values, "window_blocks": 4})


def test_an_unknown_preset_names_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"no model preset '2b'; there are tiny, 0.6b"):
        preset("2b")


def test_the_expert_is_chosen_by_the_label_of_the_document() -> None:
    expert = ExpertConfig(labels=("speech",))
    assert expert.routes("speech")
    assert not expert.routes("music")
    assert not expert.routes("speech", is_singing=True)
    assert ExpertConfig(labels=("singing",)).routes("music", is_singing=True)
    assert not ExpertConfig(placement="none").routes("speech")
