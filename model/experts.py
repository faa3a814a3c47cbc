"""A-MoME: a residual expert that only the tokens of labelled documents pass through.

The route is a label of the document, never learned. The expert adds to the shared backbone and
its last projection starts at zero, so at the start it changes nothing; and where no token routes
to it, it is not called at inference: sound and music cost what they cost without it. The expert is
a narrow SwiGLU beside the shared feed-forward.

Source:
    AudioCALM, arXiv:2606.23080 (modality expert); its width and place are choices of ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


@dataclass(frozen=True)
class Route:
    """The tokens of one forward pass that go through the expert.

    Attributes:
        tokens: Their indices in the flattened batch; None is all of them.
        scale: 1, or 0 for the dummy token of a training pass that routes none: the expert then
            gets zero gradients, and ranks without speech still join every collective.
        rows: With `tokens` None, 1 for every row that is routed, else 0: the expert runs on all of
            them, and shapes do not depend on who is routed.
    """

    tokens: Int[Tensor, " seq"] | None
    scale: float = 1.0
    rows: Float[Tensor, "batch 1 1"] | None = None


def route_tokens(tokens: Int[Tensor, " tokens"], *, is_training: bool) -> Route | None:
    """Route of a packed pass; in training it always has a token.

    Args:
        tokens: Routed tokens, as indices into the flattened batch.
        is_training: Whether gradients of all ranks will be reduced; otherwise the expert is not
            called where no token is routed.
    """
    if len(tokens):
        return Route(tokens)
    return Route(tokens.new_zeros(1), scale=0.0) if is_training else None


def route_rows(uses_expert: Sequence[bool], num_tokens: int, device: torch.device) -> Route | None:
    """Route of whole rows of `num_tokens` tokens; None, and no call, where no row is routed."""
    if not any(uses_expert):
        return None
    if all(uses_expert):
        return Route(None)
    rows = torch.tensor([row for row, uses in enumerate(uses_expert) if uses], device=device)
    tokens = rows[:, None] * num_tokens + torch.arange(num_tokens, device=device)
    return Route(tokens.flatten())


def add_routed(
    base: Float[Tensor, "batch seq hidden"],
    inputs: Float[Tensor, "batch seq width"],
    expert: nn.Module | None,
    route: Route | None,
) -> Float[Tensor, "batch seq hidden"]:
    """`base` plus the expert's output on the tokens of the route.

    Args:
        base: Output of the shared layer.
        inputs: What the shared layer saw.
        expert: Residual of the same shapes, or None without an expert.
        route: None where no token is routed; `base` comes back as it is.
    """
    if expert is None or route is None:
        return base
    if route.tokens is None:
        residual = expert(inputs)
        return base + (residual if route.rows is None else residual * route.rows)
    residual = expert(inputs.flatten(0, 1)[route.tokens]) * route.scale
    added = base.flatten(0, 1).index_add(0, route.tokens, residual.to(base.dtype))
    return added.view_as(base)
