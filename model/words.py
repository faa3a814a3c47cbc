"""Word context: the transcript tokens around a position, added to its embedding.

A model that paces speech places every frame beside the token that it speaks. The context reads the
tokens around that place directly, from a few before to a few after, so that speech follows its text
from the first training step on. Transcript tokens get the same context of themselves, and know what
follows them when their durations are predicted.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from model.layers import RMSNorm, ZeroProjection

_WIDTH = 64
_REACH = 4
"""Tokens before and after the one under a frame: about two sounds with their marks of stress."""


class WordContext(nn.Module):
    """Embedding of the transcript tokens around a frame; zero at first.

    Args:
        hidden_dim: Width of token embeddings and of the result.
        eps: Epsilon of the norm.
    """

    def __init__(self, hidden_dim: int, eps: float) -> None:
        super().__init__()
        self.norm = RMSNorm(hidden_dim, eps)
        self.input_proj = nn.Linear(hidden_dim, _WIDTH)
        self.output_proj = ZeroProjection((2 * _REACH + 1) * _WIDTH, hidden_dim, bias=False)

    def features(self, embeddings: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch width"]:
        """Features of each token that frames read."""
        return self.input_proj(self.norm(embeddings))

    def forward(
        self, features: Float[Tensor, "text width"], centre: Int[Tensor, " frames"]
    ) -> Float[Tensor, "frames hidden"]:
        """Embedding of the tokens around every frame.

        Args:
            features: One row per consecutive token, zero for tokens outside the transcript.
            centre: Token under each frame; tokens outside of `features` count as zero.
        """
        offsets = torch.arange(-_REACH, _REACH + 1, device=centre.device)
        index = centre.long()[:, None] + offsets
        is_inside = (index >= 0) & (index < len(features))
        found = features.index_select(0, index.clamp(0, len(features) - 1).flatten())
        found = found.unflatten(0, index.shape) * is_inside[..., None]
        return self.output_proj(found.flatten(1))


def centre_of(
    position: Float[Tensor, "*batch"], first: int, num_words: int
) -> Int[Tensor, "*batch"]:
    """Transcript token under each audio position, clamped to a few tokens around the transcript.

    Args:
        position: Rotary position of each frame.
        first: Position of the first transcript token.
        num_words: Transcript tokens.
    """
    token = position.floor().to(torch.int32)
    return token.clamp(first - _REACH - 1, first + num_words + _REACH)
