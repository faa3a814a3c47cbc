"""The thin flow head, and the embedding of flow time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import HeadConfig
from model.layers import ZeroProjection

_MAX_PERIOD = 10_000.0
_TIME_SCALE = 1000.0
"""Flow time in [0, 1] is spread over the range the sinusoids resolve."""


class TimeEmbedding(nn.Module):
    """Sinusoids of the flow time through a two-layer network.

    The sinusoids are float32 whatever the dtype of the weights.
    """

    def __init__(self, num_sinusoids: int, dim: int) -> None:
        super().__init__()
        self.num_sinusoids = num_sinusoids
        self.input_proj = nn.Linear(num_sinusoids, dim)
        self.output_proj = nn.Linear(dim, dim)

    def forward(self, flow_time: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch dim"]:
        """Embedding of every flow time."""
        half = self.num_sinusoids // 2
        index = torch.arange(half, device=flow_time.device, dtype=torch.float32)
        frequency = torch.exp(-math.log(_MAX_PERIOD) / half * index)
        angle = _TIME_SCALE * flow_time.float().unsqueeze(-1) * frequency
        sinusoids = torch.cat([angle.cos(), angle.sin()], dim=-1)
        sinusoids = F.pad(sinusoids, (0, self.num_sinusoids - 2 * half))
        inputs = sinusoids.to(self.input_proj.weight.dtype)
        return self.output_proj(F.silu(self.input_proj(inputs)))


Modulation = Sequence[Tensor]
"""What a layer of a head takes from flow time: shift, gain and gate of each of its branches; the
last layer has no gate."""


def modulation_of(projected: Float[Tensor, "*batch width"], num_parts: int) -> Modulation:
    """Output of a modulation projection, taken apart; every gain is 1 + scale."""
    parts = projected.chunk(num_parts, dim=-1)
    return [1 + part if index % 3 == 1 else part for index, part in enumerate(parts)]


def modulated(hidden: Tensor, shift: Tensor, gain: Tensor) -> Tensor:
    """Layer norm whose gain and offset depend on flow time."""
    return torch.addcmul(shift, F.layer_norm(hidden, hidden.shape[-1:]), gain)


class _ResidualBlock(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.modulation = ZeroProjection(dim, 3 * dim)
        self.input_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)

    def forward(self, hidden: Tensor, modulation: Modulation) -> Tensor:
        shift, gain, gate = modulation
        inputs = self.input_proj(modulated(hidden, shift, gain))
        return torch.addcmul(hidden, gate, self.output_proj(F.silu(inputs)))


class ThinFlowHead(nn.Module):
    """Velocity of every noisy position from its hidden state and flow time.

    The output projection and all modulations start at zero: the first prediction is zero
    velocity, and every residual block is the identity.

    Source:
        adaLN-zero: arXiv:2212.09748; a per-position head on autoregressive states:
        arXiv:2406.11838. Depth and width are choices of ours.
    """

    def __init__(self, hidden_dim: int, latent_dim: int, config: HeadConfig) -> None:
        super().__init__()
        self.time_embedding = TimeEmbedding(config.time_embedding_dim, config.hidden_dim)
        self.input_proj = nn.Linear(hidden_dim, config.hidden_dim)
        self.blocks = nn.ModuleList(
            _ResidualBlock(config.hidden_dim) for _ in range(config.num_layers)
        )
        self.modulation = ZeroProjection(config.hidden_dim, 2 * config.hidden_dim)
        self.output_proj = ZeroProjection(config.hidden_dim, latent_dim)

    def modulations(self, flow_time: Float[Tensor, "*batch"]) -> list[Modulation]:
        """All that the head computes from flow time alone, layer by layer."""
        condition = F.silu(self.time_embedding(flow_time))
        of_blocks = [
            modulation_of(block.modulation(condition), 3)
            for block in cast("list[_ResidualBlock]", self.blocks)
        ]
        return [*of_blocks, modulation_of(self.modulation(condition), 2)]

    def velocity(
        self, hidden: Float[Tensor, "*batch hidden"], modulations: Sequence[Modulation]
    ) -> Float[Tensor, "*batch latent_dim"]:
        """Velocity in float32, given `modulations` of the flow time."""
        state = self.input_proj(hidden)
        for block, modulation in zip(self.blocks, modulations, strict=False):
            state = block(state, modulation)
        state = modulated(state, *modulations[-1])
        return self.output_proj(state).float()

    def forward(
        self, hidden: Float[Tensor, "*batch hidden"], flow_time: Float[Tensor, "*#batch"]
    ) -> Float[Tensor, "*batch latent_dim"]:
        """Velocity in float32."""
        return self.velocity(hidden, self.modulations(flow_time))
