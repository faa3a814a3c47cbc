"""The local flow head: a small transformer denoises a block without the backbone.

The backbone runs once over finished audio. What it says of the block before, and that block
itself, are the context from which the head denoises the next one. The context does not depend on
flow time, so its keys and values are computed once a block, and a flow step costs the frames of
one block in a few narrow layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import HeadConfig
from model.flow_head import Modulation, TimeEmbedding, modulated, modulation_of
from model.layers import RMSNorm, ZeroProjection, rms_normalise
from model.rotary import Rotary, folded, rotary_table, turn

_FFN_RATIO = 4
_ROPE_THETA = 1e4
_EPS = 1e-6


@dataclass(frozen=True, eq=False)
class LayerContext:
    """What one layer needs besides the noisy block; flow time does not touch it.

    Attributes:
        key: Keys of the context, with positions.
        value: Values of the context.
        angles: Of the block, `block_frames 2 1 head_dim`, the norms' gains in them.
    """

    key: Float[Tensor, "batch heads block_frames head_dim"]
    value: Float[Tensor, "batch heads block_frames head_dim"]
    angles: Rotary

    def of_rows(self, rows: slice) -> LayerContext:
        """The same of some rows."""
        return LayerContext(self.key[rows], self.value[rows], self.angles)


class _LocalLayer(nn.Module):
    """Attention over context and block, both ways, and a feed-forward, with adaLN-zero."""

    def __init__(self, dim: int, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.modulation = ZeroProjection(dim, 6 * dim)
        self.qkv_proj = nn.Linear(dim, 3 * dim, bias=False)
        self.context_proj = nn.Linear(dim, 2 * dim, bias=False)
        self.q_norm = RMSNorm(head_dim, _EPS)
        self.k_norm = RMSNorm(head_dim, _EPS)
        self.o_proj = nn.Linear(dim, dim, bias=False)
        self.input_proj = nn.Linear(dim, _FFN_RATIO * dim)
        self.output_proj = nn.Linear(_FFN_RATIO * dim, dim)

    def context(
        self,
        projected: Float[Tensor, "batch block_frames width"],
        cosine: Float[Tensor, "seq head_dim"],
        sine: Float[Tensor, "seq head_dim"],
    ) -> LayerContext:
        """Of what `context_proj` gave, and the angles of context and block."""
        key, value = rearrange(projected, "n f (t h d) -> t n h f d", t=2, d=self.head_dim)
        frames = key.shape[2]
        of_context = folded(cosine[:frames], sine[:frames], self.k_norm.weight)
        gain = torch.stack([self.q_norm.weight, self.k_norm.weight])[:, None]
        of_block = folded(cosine[frames:, None, None], sine[frames:, None, None], gain)
        return LayerContext(turn(rms_normalise(key, _EPS), of_context), value, of_block)

    def forward(self, state: Tensor, modulation: Modulation, context: LayerContext) -> Tensor:
        """State of the block's frames after the layer, seeing the context and one another."""
        shift, gain, gate, ffn_shift, ffn_gain, ffn_gate = modulation
        projected = self.qkv_proj(modulated(state, shift, gain))
        # Named axes cost as much as the arithmetic here: every flow evaluation comes by.
        heads = projected.unflatten(-1, (3, -1, self.head_dim))
        turned = turn(rms_normalise(heads[:, :, :2], _EPS), context.angles)
        query, key = turned[:, :, 0].transpose(1, 2), turned[:, :, 1].transpose(1, 2)
        seen = F.scaled_dot_product_attention(
            query,
            torch.cat([context.key, key], dim=2),
            torch.cat([context.value, heads[:, :, 2].transpose(1, 2)], dim=2),
        )
        state = torch.addcmul(state, gate, self.o_proj(seen.transpose(1, 2).flatten(2)))
        inputs = self.input_proj(modulated(state, ffn_shift, ffn_gain))
        return torch.addcmul(state, ffn_gate, self.output_proj(F.silu(inputs)))


class LocalFlowHead(nn.Module):
    """Velocity of noisy blocks from the states and latents of the block before each.

    Before the first block stands the last prefix position, repeated, and no latents. Velocity
    starts at zero, and every layer at the identity.

    Source:
        A local diffusion transformer over language-model states and the previous patch:
        arXiv:2502.03930 (DiTAR). Keys of a context that flow time does not touch, depth and width
        are choices of ours.
    """

    def __init__(self, hidden_dim: int, latent_dim: int, config: HeadConfig) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.head_dim = config.head_dim
        self.time_embedding = TimeEmbedding(config.time_embedding_dim, dim)
        self.hidden_proj = nn.Linear(hidden_dim, dim)
        self.previous_proj = nn.Linear(latent_dim, dim)
        self.context_norm = RMSNorm(dim, _EPS)
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

    def context(
        self,
        hidden: Float[Tensor, "batch seq hidden"],
        latents: Float[Tensor, "batch seq latent_dim"],
        is_audio: Bool[Tensor, "batch seq"],
        gather: Int[Tensor, "noisy_blocks block_frames"] | None = None,
    ) -> list[LayerContext]:
        """What predicts a block, layer by layer.

        Args:
            hidden: States of the backbone, each projected once however many copies it serves.
            latents: The finished frame of every state.
            is_audio: False where there is none: prefix positions.
            gather: Which of the flattened positions stand before every block; None takes each row
                as the context of one block.
        """
        previous = self.previous_proj(latents.to(hidden.dtype))
        state = self.hidden_proj(hidden) + torch.where(is_audio[..., None], previous, 0)
        state = self.context_norm(state)
        frames = hidden.shape[1] if gather is None else gather.shape[1]
        # The context stands right before the block.
        position = torch.arange(2 * frames, device=state.device)[None]
        cosine, sine = (
            table[0, 0].to(state.dtype)
            for table in rotary_table(position, self.head_dim, _ROPE_THETA)
        )
        contexts = []
        for layer in self._layers:
            projected = layer.context_proj(state)
            if gather is not None:
                projected = projected.flatten(0, 1)[gather]
            contexts.append(layer.context(projected, cosine, sine))
        return contexts

    def velocity(
        self,
        noisy_latents: Float[Tensor, "batch block_frames latent_dim"],
        context: Sequence[LayerContext],
        modulations: Sequence[Modulation],
    ) -> Float[Tensor, "batch block_frames latent_dim"]:
        """Velocity in float32, given `context` and the `modulations` of the flow time."""
        state = self.input_proj(noisy_latents.to(self.input_proj.weight.dtype))
        for layer, modulation, of_layer in zip(self.layers, modulations, context, strict=False):
            state = layer(state, modulation, of_layer)
        state = modulated(state, *modulations[-1])
        return self.output_proj(state).float()

    def forward(
        self,
        noisy_latents: Float[Tensor, "batch block_frames latent_dim"],
        flow_time: Float[Tensor, "batch 1"],
        context: Sequence[LayerContext],
    ) -> Float[Tensor, "batch block_frames latent_dim"]:
        """Velocity in float32."""
        return self.velocity(noisy_latents, context, self.modulations(flow_time))

    @property
    def _layers(self) -> Sequence[_LocalLayer]:
        return [cast("_LocalLayer", layer) for layer in self.layers]
