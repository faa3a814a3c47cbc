"""The thin head starts at rest and reads the flow time."""

from __future__ import annotations

import torch

from model.config import HeadConfig
from model.heads import ThinFlowHead, TimeEmbedding

CONFIG = HeadConfig(hidden_dim=24, num_layers=2, time_embedding_dim=16)


def test_a_fresh_head_predicts_zero_velocity_and_can_leave_it() -> None:
    head = ThinFlowHead(32, 6, CONFIG)
    hidden, time = torch.randn(2, 5, 32), torch.rand(2, 5)
    velocity = head(hidden, time)
    assert not velocity.any()
    (velocity - 1).square().sum().backward()
    gradient = head.output_proj.weight.grad
    assert gradient is not None
    assert gradient.abs().max() > 0


def test_velocity_depends_on_hidden_and_time_of_its_own_position_alone() -> None:
    head = ThinFlowHead(32, 6, CONFIG)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    hidden, time = torch.randn(1, 3, 32), torch.rand(1, 3)
    base = head(hidden, time)
    for changed in (
        head(hidden + torch.tensor([0.0, 1.0, 0.0])[:, None], time),
        head(hidden, (time + torch.tensor([0.0, 0.3, 0.0])).clamp(0, 1)),
    ):
        moved = (changed - base).abs().amax(-1)[0] > 1e-6
        assert moved.tolist() == [False, True, False]


def test_velocity_is_float32_in_a_bfloat16_head() -> None:
    head = ThinFlowHead(32, 6, CONFIG).to(torch.bfloat16)
    assert head(torch.randn(1, 3, 32).bfloat16(), torch.rand(1, 3)).dtype == torch.float32


def test_close_flow_times_get_different_embeddings_up_to_the_data() -> None:
    embedding = TimeEmbedding(16, 8)
    time = torch.linspace(0, 1, 65)
    distance = torch.cdist(embedding(time), embedding(time))
    assert (distance + torch.eye(65) > 1e-4).all()
    # An odd width is padded.
    assert TimeEmbedding(17, 8)(time).shape == (65, 8)
