"""The backbone for sampling on a CPU: the same function of the same weights in fewer operations.

A flow evaluation runs a handful of frames through every layer. At that size a matrix product
takes as long as reading its weights, and the overhead of small operations takes as long again. So
the weights are copied once, in the memory order of the products; the gain of each norm is
multiplied into the weights after it; and the residual expert becomes more columns of the
feed-forward. BENCHMARKS.md has the gain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float, Real
from torch import Tensor, nn
from torch.nn import functional as F

from model.attention import Attend
from model.backbone import Attention, Backbone, DecoderLayer
from model.experts import Route
from model.layers import RMSNorm, SwiGLU, normalise_length
from model.rotary import Rotary, fold_gain, rotary_table, rotate_folded

_PANEL = 64
"""Inner channels of one panel of the feed-forward. Gate and up of a panel are adjacent in memory
and stay in the CPU cache during its product."""


class CpuBackbone(nn.Module):
    """`Backbone` for inference in float32, with the same calling convention.

    Args:
        backbone: All its weights but the token embedding are copied.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.config = backbone.config
        self._layers = [_Layer(layer) for layer in cast("list[DecoderLayer]", backbone.layers)]
        self._gain = _gain(backbone.norm)
        self._eps = backbone.norm.eps

    def rotary(self, position: Real[Tensor, "batch seq"], dtype: torch.dtype) -> list[Rotary]:
        """Angles of positions for `forward`, layer by layer: `heads tokens head_dim`."""
        table = rotary_table(position, self.config.head_dim, self.config.rope_theta)
        angles = Rotary(*(part.flatten(0, 2).to(dtype) for part in table))
        return [fold_gain(angles, layer.head_gain) for layer in self._layers]

    def forward(
        self,
        embeddings: Float[Tensor, "batch seq hidden"],
        rotary: Sequence[Rotary],
        attend: Attend,
        route: Route | None = None,
    ) -> Float[Tensor, "batch seq hidden"]:
        """Normalised hidden states, equal to those of `Backbone.forward`."""
        batch, seq, _ = embeddings.shape
        share = None if route is None else _expert_share(route, batch, seq)
        hidden = embeddings.flatten(0, 1)
        for index, (layer, angles) in enumerate(zip(self._layers, rotary, strict=True)):
            hidden = layer.attention(hidden, (batch, seq), angles, attend, index)
            hidden = layer.feed_forward(hidden, is_routed=route is not None, share=share)
        return (normalise_length(hidden, self._eps) * self._gain).view(batch, seq, -1)


class _Layer:
    """Weights of a layer in the memory order of its products, and the products."""

    def __init__(self, layer: DecoderLayer) -> None:
        attention: Attention = layer.self_attn
        self.eps = layer.input_layernorm.eps
        self.head_eps = attention.q_norm.eps
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        heads = torch.cat([p.weight.detach() for p in projections])
        heads = heads * _gain(layer.input_layernorm)
        # One product per head, so that the result needs no transposition.
        self.heads = heads.unflatten(0, (-1, attention.head_dim)).transpose(1, 2).contiguous()
        self.num_heads = attention.q_proj.out_features // attention.head_dim
        self.num_kv_heads = attention.k_proj.out_features // attention.head_dim
        self.head_gain = torch.cat(
            [
                _gain(attention.q_norm).expand(self.num_heads, 1, -1),
                _gain(attention.k_norm).expand(self.num_kv_heads, 1, -1),
            ]
        )
        self.output = attention.o_proj.weight.detach().t().contiguous()
        parts = [layer.mlp] if layer.expert is None else [layer.mlp, layer.expert]
        gain = _gain(layer.post_attention_layernorm)
        panels = [_panels(part, gain) for part in parts]
        self.num_shared = len(panels[0][0])
        self.gate_up = torch.cat([gate_up for gate_up, _ in panels])
        self.down = torch.cat([down for _, down in panels])

    def attention(
        self,
        hidden: Float[Tensor, "tokens hidden"],
        shape: tuple[int, int],
        rotary: Rotary,
        attend: Attend,
        layer: int,
    ) -> Float[Tensor, "tokens hidden"]:
        """States after the attention, of `batch seq` tokens."""
        inputs = normalise_length(hidden, self.eps).expand(len(self.heads), -1, -1)
        heads = torch.bmm(inputs, self.heads)
        rotated = rotate_folded(
            normalise_length(heads[: len(self.head_gain)], self.head_eps), rotary
        )
        query, key, value = (
            part.unflatten(1, shape).transpose(0, 1)
            for part in (
                rotated[: self.num_heads],
                rotated[self.num_heads :],
                heads[len(self.head_gain) :],
            )
        )
        seen = attend(layer, query, key, value).transpose(1, 2).reshape(len(hidden), -1)
        return torch.addmm(hidden, seen, self.output)

    def feed_forward(
        self, hidden: Float[Tensor, "tokens hidden"], *, is_routed: bool, share: Tensor | None
    ) -> Float[Tensor, "tokens hidden"]:
        """States after the feed-forward, and the expert where any token is routed.

        Args:
            hidden: States of all tokens.
            is_routed: Whether the expert runs.
            share: Weight of its output at every token, `tokens 1`; None is 1 everywhere.
        """
        count = len(self.gate_up) if is_routed else self.num_shared
        inputs = normalise_length(hidden, self.eps).expand(count, -1, -1)
        gate, up = torch.bmm(inputs, self.gate_up[:count]).chunk(2, dim=-1)
        inner = hidden.new_empty(len(hidden), count, _PANEL)
        torch.mul(F.silu(gate), up, out=inner.transpose(0, 1))
        if share is not None:
            inner[:, self.num_shared :] *= share[:, None]
        return torch.addmm(hidden, inner.flatten(1), self.down[: count * _PANEL])


def _gain(norm: RMSNorm) -> Float[Tensor, " dim"]:
    """Gain of a norm, times the factor that `normalise_length` leaves out."""
    return norm.weight.detach() * len(norm.weight) ** 0.5


def _panels(
    swiglu: SwiGLU, gain: Float[Tensor, " hidden"]
) -> tuple[Float[Tensor, "panels hidden both"], Float[Tensor, "inner hidden"]]:
    """Gate and up of a SwiGLU concatenated panel by panel, and its output projection, transposed.

    The last panel is filled with zeros, which add nothing.
    """
    missing = -swiglu.gate_proj.out_features % _PANEL
    gate, up = (
        F.pad(projection.weight.detach() * gain, (0, 0, 0, missing)).unflatten(0, (-1, _PANEL))
        for projection in (swiglu.gate_proj, swiglu.up_proj)
    )
    down = F.pad(swiglu.down_proj.weight.detach(), (0, missing)).t()
    return torch.cat([gate, up], dim=1).transpose(1, 2).contiguous(), down.contiguous()


def _expert_share(route: Route, batch: int, seq: int) -> Float[Tensor, "tokens 1"] | None:
    """Weight of the expert's output at every token, 1 or 0; None is 1 everywhere."""
    if route.tokens is None:
        if route.rows is None:
            return None
        return route.rows.expand(batch, seq, 1).flatten(0, 1)
    share = torch.zeros(batch * seq, 1)
    share[route.tokens] = route.scale
    return share
