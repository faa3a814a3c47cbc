"""The CPU form of the backbone gives the states of the plain one."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from model.attention import PackedAttention
from model.backbone import Backbone
from model.config import ExpertConfig, ModelConfig
from model.experts import Route, route_rows
from model.fast.cpu import CpuBackbone
from tests.factories.model import random_model, tiny_config

NO_EXPERT = ExpertConfig(placement="none")
ROUTES: dict[str, Route | None] = {
    "nobody": None,
    "everybody": route_rows([True, True], 9, torch.device("cpu")),
    "one": route_rows([True, False], 9, torch.device("cpu")),
    "the other, by rows": Route(None, rows=torch.tensor([0.0, 1.0])[:, None, None]),
}


def states(backbone: Backbone | CpuBackbone, config: ModelConfig, route: Route | None) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(2, 9, config.backbone.hidden_dim, generator=generator)
    position = torch.arange(9) + torch.tensor([[0], [4]])
    causal = PackedAttention(torch.ones(9, 9).tril().bool().expand(2, -1, -1))
    with torch.no_grad():
        rotary = backbone.rotary(position, torch.float32)
        return backbone(embeddings, rotary, causal, route)


@pytest.mark.parametrize("route", ROUTES)
def test_states_are_those_of_the_plain_backbone(route: str) -> None:
    # 48 and 12 inner channels: neither fills a panel.
    config = tiny_config()
    plain = random_model(config).backbone
    quick = CpuBackbone(plain)
    torch.testing.assert_close(
        states(quick, config, ROUTES[route]),
        states(plain, config, ROUTES[route]),
        atol=1e-5,
        rtol=1e-5,
    )


def test_more_than_one_panel_and_no_expert() -> None:
    config = tiny_config(expert=NO_EXPERT)
    wide = dataclasses.replace(config.backbone, ffn_dim=150)
    config = dataclasses.replace(config, backbone=wide)
    plain = random_model(config).backbone
    torch.testing.assert_close(
        states(CpuBackbone(plain), config, None), states(plain, config, None), atol=1e-5, rtol=1e-5
    )
