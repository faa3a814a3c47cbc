"""Shared layers: first values, meta device, joined products."""

from __future__ import annotations

import pytest
import torch

from model.attention import PackedAttention
from model.audiocalm import AudioCALM
from model.backbone import Backbone
from model.config import ExpertConfig, ModelConfig
from model.experts import route_rows
from model.layers import materialise, rms_normalise
from tests.factories.model import LOCAL_HEAD, random_model, tiny_config

CONFIGS = {
    "thin": tiny_config(),
    "local": tiny_config(head=LOCAL_HEAD),
    "expert everywhere": tiny_config(expert=ExpertConfig(placement="both", attention_rank=4)),
    "no expert, no voice": tiny_config(expert=ExpertConfig(placement="none"), speaker_id=None),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_on_the_meta_device_is_materialised_as_if_built_directly(name: str) -> None:
    torch.manual_seed(7)
    expected = AudioCALM(CONFIGS[name]).state_dict()
    with torch.device("meta"):
        model = AudioCALM(CONFIGS[name])
    assert all(value.is_meta for value in model.state_dict().values())
    torch.manual_seed(7)
    materialise(model)
    assert model.state_dict().keys() == expected.keys()
    for key, value in model.state_dict().items():
        assert torch.equal(value, expected[key]), key


def states(backbone: Backbone, config: ModelConfig) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(2, 9, config.backbone.hidden_dim, generator=generator)
    position = torch.arange(9).expand(2, -1)
    causal = PackedAttention(torch.ones(9, 9).tril().bool().expand(2, -1, -1))
    route = route_rows([True, False], 9, embeddings.device)
    return backbone(embeddings, position, causal, route)


@pytest.mark.parametrize("name", CONFIGS)
def test_joined_products_give_the_same_states_and_follow_the_weights(name: str) -> None:
    config = CONFIGS[name]
    model, twin = random_model(config), random_model(config)
    memory = sum(p.untyped_storage().nbytes() for p in model.parameters())
    model.backbone.join()
    distinct = {p.untyped_storage().data_ptr(): p.untyped_storage() for p in model.parameters()}
    assert sum(storage.nbytes() for storage in distinct.values()) == memory
    for change in (lambda m: m, lambda m: m.load_state_dict(random_model(config, 5).state_dict())):
        change(model)
        change(twin)
        with torch.no_grad():
            given, expected = (states(m.backbone, config) for m in (model, twin))
        torch.testing.assert_close(given, expected, atol=1e-5, rtol=1e-5)


def test_joining_again_leaves_the_matrices_where_captured_graphs_read_them() -> None:
    model = random_model(tiny_config())
    model.backbone.join()
    first = [layer.mlp._joined for layer in model.backbone.layers]
    model.backbone.join()
    assert all(
        layer.mlp._joined is before
        for layer, before in zip(model.backbone.layers, first, strict=True)
    )
    model.half().float().backbone.join()
    moved = model.backbone.layers[0].mlp
    assert moved._joined.data_ptr() == moved.gate_proj.weight.data_ptr()


def test_a_joined_backbone_still_learns_and_moves() -> None:
    config = tiny_config()
    model, twin = random_model(config), random_model(config)
    model.backbone.join()
    for trained in (model, twin):
        states(trained.backbone, config).square().sum().backward()
    expected = dict(twin.named_parameters())
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, expected[name].grad)
    assert model.backbone.layers[0].mlp.gate_proj.weight.grad is not None
    with torch.no_grad():
        wide = states(model.half().float().backbone, config)
        for parameter in model.backbone.layers[0].mlp.gate_proj.parameters():
            parameter.zero_()
        assert not torch.equal(states(model.backbone, config), wide)


def test_normalising_without_gradients_is_the_same() -> None:
    inputs = 3 * torch.randn(2, 5, 64)
    with torch.no_grad():
        given = rms_normalise(inputs, 1e-6)
    torch.testing.assert_close(given, rms_normalise(inputs, 1e-6), atol=1e-6, rtol=1e-6)
