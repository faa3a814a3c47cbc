"""The backbone is Qwen3: parity with `transformers` on a random checkpoint, single and sharded."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.attention import PackedAttention
from model.audiocalm import AudioCALM
from model.config import BackboneConfig, ModelConfig
from model.layers import RMSNorm
from tests.factories.model import load_qwen3, random_model, tiny_config

IDS = torch.randint(0, 96, (2, 17), generator=torch.Generator().manual_seed(3))
SHAPES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 56,
    "vocab_size": 96,
}


def config_of_checkpoint(**changes: Any) -> ModelConfig:
    backbone = BackboneConfig(
        hidden_dim=32,
        num_layers=3,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        ffn_dim=56,
        vocab_size=96,
    )
    return tiny_config(backbone=dataclasses.replace(backbone, **changes))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tensor]:
    """A random Qwen3 checkpoint as published, and its hidden states."""
    from transformers import Qwen3Config, Qwen3Model

    config = Qwen3Config(**SHAPES, rope_theta=1e6, rms_norm_eps=1e-6, attn_implementation="eager")
    torch.manual_seed(0)
    reference = Qwen3Model(config).eval()
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            # Larger than a fresh model, so that norms, rotary angles and softmax all matter.
            spread = 0.2 if parameter.ndim > 1 else 0.3
            parameter.add_(spread * torch.randn(parameter.shape))
            assert "bias" not in name
        hidden = reference(input_ids=IDS).last_hidden_state
    folder = tmp_path_factory.mktemp("qwen3")
    weights = {f"model.{name}": value for name, value in reference.state_dict().items()}
    weights["lm_head.weight"] = torch.zeros(96, 32)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(folder)
    return folder, hidden


def hidden_states(model: AudioCALM) -> Tensor:
    causal = torch.ones(17, 17).tril().bool().expand(2, -1, -1)
    with torch.no_grad():
        rotary = model.backbone.rotary(torch.arange(17).expand(2, -1), torch.float32)
        return model.backbone(model.backbone.embed_tokens(IDS), rotary, PackedAttention(causal))


@pytest.mark.slow
def test_hidden_states_equal_those_of_transformers(published: tuple[Path, Tensor]) -> None:
    folder, expected = published
    model = random_model(config_of_checkpoint())
    load_qwen3(model, folder)
    assert expected.std() > 0.5
    torch.testing.assert_close(hidden_states(model), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_shards_load_as_one_file_does_and_leave_the_rest_alone(
    published: tuple[Path, Tensor], tmp_path: Path
) -> None:
    folder, expected = published
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for shard, members in shards.items():
        save_file({name: weights[name] for name in members}, tmp_path / shard)
    where = {name: shard for shard, members in shards.items() for name in members}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    model = random_model(config_of_checkpoint())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    load_qwen3(model, tmp_path)
    torch.testing.assert_close(hidden_states(model), expected, atol=1e-4, rtol=1e-4)
    for name, value in model.state_dict().items():
        is_published = name.startswith("backbone.") and ".expert." not in name
        assert torch.equal(value, before[name]) != is_published


@pytest.mark.slow
def test_a_checkpoint_that_does_not_fit_is_refused(
    published: tuple[Path, Tensor], tmp_path: Path
) -> None:
    folder, _ = published
    with pytest.raises(ValueError, match=r"rope_theta is 1000000.0 and the model's 10000.0"):
        load_qwen3(random_model(config_of_checkpoint(rope_theta=1e4)), folder)
    with pytest.raises(FileNotFoundError, match="neither"):
        load_qwen3(random_model(config_of_checkpoint()), tmp_path)
    weights = load_file(folder / "model.safetensors")
    path = tmp_path / "model.safetensors"
    save_file(weights, path)
    with pytest.raises(ValueError, match=r"down_proj.*\(32, 56\) and the backbone's \(32, 40\)"):
        load_qwen3(random_model(config_of_checkpoint(ffn_dim=40)), tmp_path)
    save_file({**weights, "model.layers.0.self_attn.q_proj.bias": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"q_proj.bias, which the backbone has not"):
        load_qwen3(random_model(config_of_checkpoint()), tmp_path)
    del weights["model.norm.weight"]
    save_file(weights, path)
    with pytest.raises(ValueError, match=r"lacks 1 tensors, first norm.weight"):
        load_qwen3(random_model(config_of_checkpoint()), tmp_path)


def test_rms_norm_computes_in_float32_and_casts_before_the_gain() -> None:
    norm = RMSNorm(64, eps=1e-6).to(torch.bfloat16)
    with torch.no_grad():
        norm.weight.normal_(1, 0.3)
    inputs = (100 * torch.randn(5, 64)).to(torch.bfloat16)
    wide = inputs.float()
    scaled = wide / (wide.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    assert torch.equal(norm(inputs), norm.weight * scaled.to(torch.bfloat16))
