"""The local flow head: a small transformer denoises a block without the backbone.

The backbone runs once over finished audio. What it says of the block before, and that block
itself, are the context from which the head denoises the next one. The context does not depend on
flow time, so its keys and values are computed once a block, and a flow step costs the frames of
one block in a few narrow layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from model.backbone import rotary_table, rotate
from model.config import HeadConfig
from model.flow_head import TimeEmbedding, modulated
from model.layers import RMSNorm, ZeroProjection

_FFN_RATIO = 4
_ROPE_THETA = 1e4
_EPS = 1e-6

KeyValue = tuple[Tensor, Tensor]
"""Keys with positions, and values, `batch heads block_frames head_dim`, of one layer's context."""


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

    def key_value(self, projected: Tensor, rotary: tuple[Tensor, Tensor]) -> KeyValue:
        """Context that `context_proj` gave, as keys and values of a block."""
        key, value = rearrange(projected, "n f (t h d) -> t n h f d", t=2, d=self.head_dim)
        return rotate(self.k_norm(key), *rotary), value

    def forward(
        self, state: Tensor, modulation: Tensor, context: KeyValue, rotary: tuple[Tensor, Tensor]
    ) -> Tensor:
        """State of the block's frames after the layer, seeing the context and one another."""
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = modulation.chunk(6, dim=-1)
        projected = self.qkv_proj(modulated(state, shift, scale))
        query, key, value = rearrange(projected, "n f (t h d) -> t n h f d", t=3, d=self.head_dim)
        query = rotate(self.q_norm(query), *rotary)
        key = torch.cat([context[0], rotate(self.k_norm(key), *rotary)], dim=2)
        value = torch.cat([context[1], value], dim=2)
        heads = F.scaled_dot_product_attention(query, key, value)
        state = torch.addcmul(state, gate, self.o_proj(rearrange(heads, "n h f d -> n f (h d)")))
        inputs = self.input_proj(modulated(state, ffn_shift, ffn_scale))
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

    def modulations(self, flow_time: Float[Tensor, "*batch"]) -> list[Tensor]:
        """All that the head computes from flow time alone, layer by layer."""
        condition = F.silu(self.time_embedding(flow_time))
        of_layers = [layer.modulation(condition) for layer in self._layers]
        return [*of_layers, self.modulation(condition)]

    def context(
        self,
        hidden: Float[Tensor, "batch seq hidden"],
        latents: Float[Tensor, "batch seq latent_dim"],
        is_audio: Bool[Tensor, "batch seq"],
        gather: Int[Tensor, "noisy_blocks block_frames"] | None = None,
    ) -> list[KeyValue]:
        """Keys and values of what predicts a block, layer by layer.

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
        contexts = []
        for layer in self._layers:
            projected = layer.context_proj(state)
            if gather is not None:
                projected = projected.flatten(0, 1)[gather]
            rotary = self._rotary(projected, start=0)
            contexts.append(layer.key_value(projected, rotary))
        return contexts

    def velocity(
        self,
        noisy_latents: Float[Tensor, "batch block_frames latent_dim"],
        context: Sequence[KeyValue],
        modulations: Sequence[Tensor],
    ) -> Float[Tensor, "batch block_frames latent_dim"]:
        """Velocity in float32, given `context` and the `modulations` of the flow time."""
        state = self.input_proj(noisy_latents.to(self.input_proj.weight.dtype))
        rotary = self._rotary(state, start=state.shape[1])
        for layer, modulation, of_layer in zip(self.layers, modulations, context, strict=False):
            state = layer(state, modulation, of_layer, rotary)
        state = modulated(state, *modulations[-1].chunk(2, dim=-1))
        return self.output_proj(state).float()

    def forward(
        self,
        noisy_latents: Float[Tensor, "batch block_frames latent_dim"],
        flow_time: Float[Tensor, "batch 1"],
        context: Sequence[KeyValue],
    ) -> Float[Tensor, "batch block_frames latent_dim"]:
        """Velocity in float32."""
        return self.velocity(noisy_latents, context, self.modulations(flow_time))

    @property
    def _layers(self) -> Sequence[_LocalLayer]:
        return [cast("_LocalLayer", layer) for layer in self.layers]

    def _rotary(self, like: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """The context stands right before the block."""
        position = torch.arange(start, start + like.shape[1], device=like.device)[None]
        cosine, sine = rotary_table(position, self.head_dim, _ROPE_THETA)
        return cosine.to(like.dtype), sine.to(like.dtype)
