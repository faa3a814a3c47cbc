"""Rotary position embedding, plain and with the gain of a norm folded into it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Real
from torch import Tensor


class Rotary(NamedTuple):
    """Rotary angles of the positions of a pass, as one layer uses them.

    Attributes:
        cosine: Broadcasts to heads, as `batch 1 seq head_dim` does to `batch heads seq head_dim`.
        sine: Same shape.
    """

    cosine: Tensor
    sine: Tensor


def rotary_table(position: Real[Tensor, "batch seq"], head_dim: int, theta: float) -> Rotary:
    """Rotary angles `batch 1 seq head_dim` of positions, float32.

    Source:
        RoFormer, arXiv:2104.09864; halves rotated against each other, as Qwen3 does.
    """
    exponent = torch.arange(0, head_dim, 2, device=position.device).float() / head_dim
    angle = position.unsqueeze(-1).float() * theta**-exponent
    angle = torch.cat([angle, angle], dim=-1).unsqueeze(1)
    return Rotary(angle.cos(), angle.sin())


def rotate(
    heads: Float[Tensor, "*batch head_dim"], angles: Rotary
) -> Float[Tensor, "*batch head_dim"]:
    """Rotate heads by the angles of their positions."""
    first, second = heads.chunk(2, dim=-1)
    return torch.addcmul(heads * angles.cosine, torch.cat([-second, first], dim=-1), angles.sine)


def fold_gain(angles: Rotary, gain: Float[Tensor, "*heads head_dim"]) -> Rotary:
    """Angles multiplied by the gain of the norm before them, for `rotate_folded`.

    With gain g, the halves of a head exchanged by s, the rotated head is
    x (g cos) + s(x) (s(g) (-sin, sin)).
    """
    first, second = angles.sine.chunk(2, dim=-1)
    signed = torch.cat([-first, second], dim=-1)
    return Rotary(angles.cosine * gain, signed * gain.roll(gain.shape[-1] // 2, -1))


def rotate_folded(
    heads: Float[Tensor, "*batch head_dim"], angles: Rotary
) -> Float[Tensor, "*batch head_dim"]:
    """Norm gain and rotation of heads in three operations, by the angles of `fold_gain`."""
    swapped = heads.roll(heads.shape[-1] // 2, -1)
    return torch.addcmul(heads * angles.cosine, swapped, angles.sine)
