"""Decoder-only transformer in the Qwen3 layout, with the residual expert in its layers.

Parameter names are those of published Qwen3 checkpoints, so loading is a change of prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from einops import rearrange
from jaxtyping import Float, Real
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.attention import Attend
from model.config import BackboneConfig, ExpertConfig
from model.experts import Route, add_routed
from model.layers import Projection, RMSNorm, SwiGLU, TokenEmbedding
from model.rotary import Rotary, rotary_table, rotate


class Attention(nn.Module):
    """Grouped-query attention with a norm on every query and key head."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        inner = config.num_heads * config.head_dim
        inner_kv = config.num_kv_heads * config.head_dim
        self.head_dim = config.head_dim
        self.q_proj = Projection(config.hidden_dim, inner)
        self.k_proj = Projection(config.hidden_dim, inner_kv)
        self.v_proj = Projection(config.hidden_dim, inner_kv)
        self.o_proj = Projection(inner, config.hidden_dim)
        self.q_norm = RMSNorm(config.head_dim, config.norm_eps)
        self.k_norm = RMSNorm(config.head_dim, config.norm_eps)

    def forward(
        self,
        hidden: Float[Tensor, "batch seq hidden"],
        rotary: Rotary,
        attend: Attend,
        layer: int,
    ) -> Float[Tensor, "batch seq hidden"]:
        """Attention output, before the residual sum."""
        query, key, value = (
            rearrange(projection(hidden), "b s (h d) -> b h s d", d=self.head_dim)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        query, key = rotate(self.q_norm(query), rotary), rotate(self.k_norm(key), rotary)
        heads = attend(layer, query, key, value)
        return self.o_proj(rearrange(heads, "b h s d -> b s (h d)"))


class DecoderLayer(nn.Module):
    """Attention and feed-forward, each with its norm, residual sum and expert."""

    def __init__(self, config: BackboneConfig, expert: ExpertConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.input_layernorm = RMSNorm(config.hidden_dim, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_dim, config.norm_eps)
        self.mlp = SwiGLU(config.hidden_dim, config.ffn_dim)
        self.expert = (
            None
            if expert.placement == "none"
            else SwiGLU(config.hidden_dim, expert.width(config.ffn_dim), starts_at_zero=True)
        )

    def forward(
        self,
        hidden: Float[Tensor, "batch seq hidden"],
        rotary: Rotary,
        attend: Attend,
        route: Route | None,
    ) -> Float[Tensor, "batch seq hidden"]:
        """Hidden states after the layer."""
        inputs = self.input_layernorm(hidden)
        hidden = hidden + self.self_attn(inputs, rotary, attend, self.layer)
        inputs = self.post_attention_layernorm(hidden)
        return hidden + add_routed(self.mlp(inputs), inputs, self.expert, route)


@runtime_checkable
class BackboneLike(Protocol):
    """The backbone, or a faster form of the same function."""

    def rotary(self, position: Real[Tensor, "batch seq"], dtype: torch.dtype) -> list[Rotary]:
        """Angles of positions for a pass, layer by layer; tokens may share a position."""

    def __call__(
        self,
        embeddings: Float[Tensor, "batch seq hidden"],
        rotary: Sequence[Rotary],
        attend: Attend,
        route: Route | None = None,
    ) -> Float[Tensor, "batch seq hidden"]:
        """Normalised hidden states of embedded tokens and latents, given `rotary` of their
        positions, the attention over pack or cache, and the tokens that the expert sees."""


class Backbone(nn.Module):
    """Token embedding, layers and final norm; there is no language-model output.

    Attributes:
        recomputes_layers: Keep only the layer inputs in training and compute each layer again in
            the backward pass: memory for time, the same gradients.
    """

    def __init__(self, config: BackboneConfig, expert: ExpertConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = TokenEmbedding(config.vocab_size, config.hidden_dim)
        self.layers = nn.ModuleList(
            DecoderLayer(config, expert, layer) for layer in range(config.num_layers)
        )
        self.norm = RMSNorm(config.hidden_dim, config.norm_eps)
        self.recomputes_layers = False

    def rotary(self, position: Real[Tensor, "batch seq"], dtype: torch.dtype) -> list[Rotary]:
        """Angles of positions for `forward`, layer by layer."""
        table = rotary_table(position, self.config.head_dim, self.config.rope_theta)
        return [Rotary(*(part.to(dtype) for part in table))] * self.config.num_layers

    def forward(
        self,
        embeddings: Float[Tensor, "batch seq hidden"],
        rotary: Sequence[Rotary],
        attend: Attend,
        route: Route | None = None,
    ) -> Float[Tensor, "batch seq hidden"]:
        """Normalised hidden states; arguments as in `BackboneLike`."""
        hidden = embeddings
        recomputes = self.recomputes_layers and torch.is_grad_enabled()
        for layer, angles in zip(self.layers, rotary, strict=True):
            if recomputes:
                hidden = checkpoint(layer, hidden, angles, attend, route, use_reentrant=False)
            else:
                hidden = layer(hidden, angles, attend, route)
        return self.norm(hidden)
