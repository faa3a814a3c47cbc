"""The local flow head: a small transformer denoises a block without the backbone.

The backbone runs once a block: over blank frames that stand where the block will stand, and that
see the prefix, all finished blocks and one another. Their states say what each frame should
become. From them the head denoises the block, in a few narrow layers and as many flow steps as
asked for; flow time never enters the backbone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import HeadConfig
from model.flow_head import Modulation, TimeEmbedding, modulated, modulation_of
from model.layers import RMSNorm, ZeroProjection, rms_normalise
from model.rotary import Rotary, folded, rotary_table, turn

_FFN_RATIO = 4
_ROPE_THETA = 1e4
_EPS = 1e-6


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

    def angles(
        self,
        cosine: Float[Tensor, "block_frames 1 1 head_dim"],
        sine: Float[Tensor, "block_frames 1 1 head_dim"],
    ) -> Rotary:
        """Angles of queries and keys, `block_frames 2 1 head_dim`, the norms' gains in them."""
        gain = torch.stack([self.q_norm.weight, self.k_norm.weight])[:, None]
        return folded(cosine, sine, gain)

    def forward(self, state: Tensor, modulation: Modulation, angles: Rotary) -> Tensor:
        """State of the block's frames after the layer."""
        shift, gain, gate, ffn_shift, ffn_gain, ffn_gate = modulation
        projected = self.qkv_proj(modulated(state, shift, gain))
        # Named axes cost as much as the arithmetic here: every flow evaluation comes by.
        heads = projected.unflatten(-1, (3, -1, self.head_dim))
        turned = turn(rms_normalise(heads[:, :, :2], _EPS), angles)
        query, key = turned[:, :, 0].transpose(1, 2), turned[:, :, 1].transpose(1, 2)
        seen = F.scaled_dot_product_attention(query, key, heads[:, :, 2].transpose(1, 2))
        state = torch.addcmul(state, gate, self.o_proj(seen.transpose(1, 2).flatten(2)))
        inputs = self.input_proj(modulated(state, ffn_shift, ffn_gain))
        return torch.addcmul(state, ffn_gate, self.output_proj(F.silu(inputs)))


class LocalFlowHead(nn.Module):
    """Velocity of noisy blocks from the states of the blank frames in their place.

    Velocity starts at zero, and every layer at the identity.

    Source:
        States of blank positions that a small network denoises from: arXiv:2406.11838 (MAR); a
        local transformer over the frames of a block: arXiv:2502.03930 (DiTAR). That blocks are
        in order, depth and width are choices of ours.
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
        """All that the head computes from flow time alone, layer by layer."""
        condition = F.silu(self.time_embedding(flow_time))
        of_layers = [modulation_of(layer.modulation(condition), 6) for layer in self._layers]
        return [*of_layers, modulation_of(self.modulation(condition), 2)]

    def condition(self, hidden: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch dim"]:
        """What the states of blank frames add to the noisy ones; flow time does not touch it."""
        return self.condition_proj(hidden)

    def angles(self, num_frames: int) -> list[Rotary]:
        """Rotary angles of a block, layer by layer."""
        weight = self.condition_proj.weight
        position = torch.arange(num_frames, device=weight.device)[None]
        cosine, sine = (
            table[0, 0][:, None, None].to(weight.dtype)
            for table in rotary_table(position, self.head_dim, _ROPE_THETA)
        )
        return [layer.angles(cosine, sine) for layer in self._layers]

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
