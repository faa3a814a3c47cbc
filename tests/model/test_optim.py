from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from model.codec.registry import build_codec, codec_preset
from model.codec.vae.codec_layers import ChannelNorm
from model.optim import (
    OptimConfig,
    adamw,
    average_decay,
    parameter_groups,
    rate_share,
    set_rates,
    update_average,
)

SCHEDULE = OptimConfig(num_steps=100, warmup_steps=10, decay_share=0.2, final_share=0.1)


def test_the_rate_warms_up_stays_and_falls_to_its_floor():
    shares = [rate_share(step, SCHEDULE) for step in range(100)]
    assert shares[0] == pytest.approx(0.1)
    assert shares[9:80] == [1.0] * 71
    assert shares[89] == pytest.approx(0.55)
    assert shares[99] == pytest.approx(0.1)
    assert all(later <= earlier for earlier, later in itertools.pairwise(shares[79:]))


def test_beyond_the_last_step_the_rate_keeps_its_floor():
    assert rate_share(1000, SCHEDULE) == pytest.approx(0.1)


def test_the_cosine_fall_is_half_way_at_half_time():
    config = OptimConfig(num_steps=100, warmup_steps=0, decay_share=1.0, decay="cosine")
    assert rate_share(49, config) == pytest.approx(0.55)
    assert rate_share(24, config) == pytest.approx(1 - 0.9 * (0.5 - 0.5 * math.cos(math.pi * 0.25)))


def test_without_warm_up_and_fall_the_rate_is_constant():
    config = OptimConfig(num_steps=10, warmup_steps=0, decay_share=0.0)
    assert {rate_share(step, config) for step in range(12)} == {1.0}


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.expert = nn.Linear(4, 2, bias=False)


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict({"embedding": nn.Embedding(8, 4), "layer": _Layer()})
        self.head = nn.Linear(4, 3)


def test_every_parameter_is_in_one_group_with_its_rate_and_decay():
    model = _Model()
    config = OptimConfig(backbone_multiplier=0.3, embedding_multiplier=0.1, weight_decay=0.2)
    groups = {group["name"]: group for group in parameter_groups(model, config)}
    layer = model.backbone["layer"]
    expected = {
        "embedding_plain": (0.1, 0.0, [model.backbone["embedding"].weight]),
        "backbone_decay": (0.3, 0.2, [layer.projection.weight]),
        "backbone_plain": (0.3, 0.0, [layer.projection.bias, layer.norm.weight, layer.norm.bias]),
        "new_decay": (1.0, 0.2, [layer.expert.weight, model.head.weight]),
        "new_plain": (1.0, 0.0, [model.head.bias]),
    }
    assert set(groups) == set(expected)
    for name, (multiplier, decay, parameters) in expected.items():
        group = groups[name]
        assert group["multiplier"] == multiplier
        assert group["weight_decay"] == decay
        assert [id(p) for p in group["params"]] == [id(p) for p in parameters]


def test_the_gains_of_a_norm_over_channels_do_not_decay():
    codec = build_codec(codec_preset("tiny"))
    gains = {id(m.weight) for m in codec.modules() if isinstance(m, ChannelNorm)}
    assert gains
    for group in parameter_groups(codec, OptimConfig(weight_decay=0.1)):
        if group["weight_decay"]:
            assert not gains & {id(parameter) for parameter in group["params"]}


def test_frozen_parameters_are_in_no_group():
    model = _Model()
    model.backbone["embedding"].weight.requires_grad_(False)
    names = [group["name"] for group in parameter_groups(model, OptimConfig())]
    assert "embedding_plain" not in names


def test_rates_of_groups_follow_step_and_multiplier():
    model = _Model()
    config = OptimConfig(num_steps=10, warmup_steps=4, learning_rate=1.0, backbone_multiplier=0.5)
    optimiser = adamw(parameter_groups(model, config), config)
    assert set_rates(optimiser.param_groups, 1, config) == pytest.approx(0.5)
    rates = {group["name"]: group["lr"] for group in optimiser.param_groups}
    assert rates["new_decay"] == pytest.approx(0.5)
    assert rates["backbone_decay"] == pytest.approx(0.25)


def test_the_average_follows_its_recursion():
    weights = [torch.randn(3, 2), torch.randn(5)]
    average = [torch.zeros(3, 2), torch.zeros(5)]
    expected = [tensor.clone() for tensor in average]
    for _ in range(4):
        update_average(average, weights, 0.75)
        expected = [0.75 * old + 0.25 * new for old, new in zip(expected, weights, strict=True)]
        weights = [tensor + 1 for tensor in weights]
    for got, wanted in zip(average, expected, strict=True):
        torch.testing.assert_close(got, wanted)


def test_the_decay_of_the_average_grows_to_its_limit():
    config = OptimConfig(ema_decay=0.99)
    decays = [average_decay(step, config) for step in (0, 10, 100_000)]
    assert decays == [0.1, pytest.approx(0.55), 0.99]
    assert average_decay(5, OptimConfig(ema_decay=0.0)) == 0.0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_steps", 0),
        ("learning_rate", -1.0),
        ("warmup_steps", -1),
        ("decay_share", 1.5),
        ("ema_decay", 1.0),
        ("betas", (0.9, 1.0)),
        ("embedding_multiplier", -0.1),
    ],
)
def test_values_out_of_range_name_the_field(field, value):
    with pytest.raises(ValueError, match=field):
        OptimConfig(**{field: value})
