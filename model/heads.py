"""The flow heads: from hidden states and flow time to the velocity of a block.

Under the thin head the backbone sees the noisy block, and the head maps each state to a velocity.
Under the local head the backbone runs once a block, over blank frames that stand where the block
will stand and see the prefix, all finished blocks and one another. From their states a small
transformer denoises the block in as many flow steps as asked for; flow time never enters the
backbone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import HeadConfig
from model.layers import RMSNorm, ZeroProjection, rms_normalise
from model.rotary import Rotary, fold_gain, rotary_table, rotate_folded

_FFN_RATIO = 4
_ROPE_THETA = 1e4
_EPS = 1e-6

_MAX_PERIOD = 10_000.0
_TIME_SCALE = 1000.0
"""Flow time in [0, 1] is scaled to the range that the sinusoids resolve, as for the 1,000 steps of
a diffusion model."""


class TimeEmbedding(nn.Module):
    """Sinusoids of the flow time through a two-layer network.

    The sinusoids are float32 whatever the dtype of the weights.

    Source:
        Sinusoids of period up to 10,000: arXiv:1706.03762, section 3.5; the network after them:
        DiT, arXiv:2212.09748.
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
"""adaLN parameters of a layer: shift, gain and gate of each of its branches; the last layer has no
gate."""


def modulation_of(projected: Float[Tensor, "*batch width"], num_parts: int) -> Modulation:
    """Split the output of a modulation projection; every gain is 1 + scale."""
    parts = projected.chunk(num_parts, dim=-1)
    return [1 + part if index % 3 == 1 else part for index, part in enumerate(parts)]


def modulated(hidden: Tensor, shift: Tensor, gain: Tensor) -> Tensor:
    """Layer norm whose gain and offset depend on flow time."""
    return torch.addcmul(shift, F.layer_norm(hidden, hidden.shape[-1:]), gain)


class _ResidualBlock(nn.Module):
    """Two-layer network with adaLN-zero."""

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
        arXiv:2406.11838. Depth and width are our choices.
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
        """adaLN parameters of each layer, which depend on flow time alone."""
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


class _LocalLayer(nn.Module):
    """Attention inside a block, both ways, and a feed-forward, with adaLN-zero."""

    def __init__(self, dim: int, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.modulation = ZeroProjection(dim, 6 * dim)
        self.qkv_proj = nn.Linear(dim, 3 * dim, bias=False)
        self.q_norm = RMSNorm(head_dim, _EPS)
        self.k_norm = RMSNorm(head_dim, _EPS)
        self.o_proj = nn.Linear(dim, dim, bias=False)
        self.input_proj = nn.Linear(dim, _FFN_RATIO * dim)
        self.output_proj = nn.Linear(_FFN_RATIO * dim, dim)

    def angles(self, table: Rotary) -> Rotary:
        """Angles of queries and keys, `block_frames 2 1 head_dim`, the norms' gains in them."""
        return fold_gain(table, torch.stack([self.q_norm.weight, self.k_norm.weight])[:, None])

    def forward(self, state: Tensor, modulation: Modulation, angles: Rotary) -> Tensor:
        """State of the block's frames after the layer."""
        shift, gain, gate, ffn_shift, ffn_gain, ffn_gate = modulation
        projected = self.qkv_proj(modulated(state, shift, gain))
        # einops would double the cost; this runs at every flow evaluation.
        heads = projected.unflatten(-1, (3, -1, self.head_dim))
        rotated = rotate_folded(rms_normalise(heads[:, :, :2], _EPS), angles)
        query, key = rotated[:, :, 0].transpose(1, 2), rotated[:, :, 1].transpose(1, 2)
        seen = F.scaled_dot_product_attention(query, key, heads[:, :, 2].transpose(1, 2))
        state = torch.addcmul(state, gate, self.o_proj(seen.transpose(1, 2).flatten(2)))
        inputs = self.input_proj(modulated(state, ffn_shift, ffn_gain))
        return torch.addcmul(state, ffn_gate, self.output_proj(F.silu(inputs)))


class LocalFlowHead(nn.Module):
    """Velocity of noisy blocks from the states of the blank frames in their place.

    Velocity starts at zero, and every layer at the identity.

    Source:
        States of blank positions that a small network denoises from: arXiv:2406.11838 (MAR); a
        local transformer over the frames of a block: arXiv:2502.03930 (DiTAR). Generating blocks
        in order, depth and width are our choices.
    """

    def __init__(self, hidden_dim: int, latent_dim: int, config: HeadConfig) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.head_dim = config.head_dim
        self.time_embedding = TimeEmbedding(config.time_embedding_dim, dim)
        self.condition_proj = nn.Linear(hidden_dim, dim)
        self.input_proj = nn.Linear(latent_dim, dim)
        self.layers = nn.ModuleList(
            _LocalLayer(dim, config.head_dim) for _ in range(config.num_layers)
        )
        self.modulation = ZeroProjection(dim, 2 * dim)
        self.output_proj = ZeroProjection(dim, latent_dim)

    def modulations(self, flow_time: Float[Tensor, "*batch"]) -> list[Modulation]:
        """adaLN parameters of each layer, which depend on flow time alone."""
        condition = F.silu(self.time_embedding(flow_time))
        of_layers = [modulation_of(layer.modulation(condition), 6) for layer in self._layers]
        return [*of_layers, modulation_of(self.modulation(condition), 2)]

    def condition(self, hidden: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch dim"]:
        """Projected states of blank frames, added to the noisy frames at every flow time."""
        return self.condition_proj(hidden)

    def angles(self, num_frames: int) -> list[Rotary]:
        """Rotary angles of a block, layer by layer."""
        weight = self.condition_proj.weight
        position = torch.arange(num_frames, device=weight.device)[None]
        table = rotary_table(position, self.head_dim, _ROPE_THETA)
        table = Rotary(*(part[0, 0][:, None, None].to(weight.dtype) for part in table))
        return [layer.angles(table) for layer in self._layers]

    def velocity(
        self,
        noisy_latents: Float[Tensor, "batch block_frames latent_dim"],
        condition: Float[Tensor, "batch block_frames dim"],
        modulations: Sequence[Modulation],
        angles: Sequence[Rotary],
    ) -> Float[Tensor, "batch block_frames latent_dim"]:
        """Velocity in float32, given the `modulations` of the flow time and `angles`."""
        state = self.input_proj(noisy_latents.to(self.input_proj.weight.dtype)) + condition
        for layer, modulation, of_layer in zip(self.layers, modulations, angles, strict=False):
            state = layer(state, modulation, of_layer)
        state = modulated(state, *modulations[-1])
        return self.output_proj(state).float()

    def forward(
        self,
        noisy_latents: Float[Tensor, "batch block_frames latent_dim"],
        flow_time: Float[Tensor, "batch 1"],
        condition: Float[Tensor, "batch block_frames dim"],
    ) -> Float[Tensor, "batch block_frames latent_dim"]:
        """Velocity in float32."""
        angles = self.angles(noisy_latents.shape[1])
        return self.velocity(noisy_latents, condition, self.modulations(flow_time), angles)

    @property
    def _layers(self) -> Sequence[_LocalLayer]:
        return [cast("_LocalLayer", layer) for layer in self.layers]


class ScalarHead(nn.Module):
    """One number at every position: the logit of `end_of_audio`, or the logarithm of the frames
    that a transcript token takes."""

    def __init__(self, hidden_dim: int) -> None:
        super().__init__()
        self.input_proj = nn.Linear(hidden_dim, hidden_dim)
        self.output_proj = nn.Linear(hidden_dim, 1)

    def forward(self, hidden: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch"]:
        """The number in float32."""
        return self.output_proj(F.silu(self.input_proj(hidden))).squeeze(-1).float()
