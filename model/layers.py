"""Layers shared by backbone and heads, and how a model on the meta device comes to life.

Every class that owns parameters sets their first values in `reset_parameters`, and touches those of
no other. So a model can be built without memory and materialised later, by us or by a sharding
library that calls `reset_parameters` itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

INIT_STD = 0.02
"""Standard deviation of every matrix of the backbone before training, as in Qwen3."""

Model = TypeVar("Model", bound=nn.Module)


class Projection(nn.Linear):
    """Linear map without bias, normal at first."""

    def __init__(self, input_dim: int, output_dim: int) -> None:
        super().__init__(input_dim, output_dim, bias=False)

    def reset_parameters(self) -> None:
        """Normal of `INIT_STD`."""
        nn.init.normal_(self.weight, std=INIT_STD)


class ZeroProjection(nn.Linear):
    """Linear map that gives zero at first, weights and bias."""

    def reset_parameters(self) -> None:
        """Zeros."""
        for parameter in self.parameters():
            nn.init.zeros_(parameter)


class TokenEmbedding(nn.Embedding):
    """Token embedding, normal at first."""

    def reset_parameters(self) -> None:
        """Normal of `INIT_STD`."""
        nn.init.normal_(self.weight, std=INIT_STD)


class RMSNorm(nn.Module):
    """Root-mean-square normalisation: float32 statistics, cast back, then the gain.

    The order matters for parity with published weights in bfloat16.
    """

    def __init__(self, dim: int, eps: float, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim))
        self.eps = eps
        self._gain = gain
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The same gain everywhere."""
        nn.init.constant_(self.weight, self._gain)

    def forward(self, inputs: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Normalised over the last axis."""
        if inputs.dtype == self.weight.dtype == torch.float32:
            return F.rms_norm(inputs, self.weight.shape, self.weight, self.eps)
        normalised = F.rms_norm(inputs.float(), inputs.shape[-1:], eps=self.eps)
        return self.weight * normalised.to(inputs.dtype)


def materialise(model: Model, device: torch.device | str = "cpu") -> Model:
    """Memory and first values for a model that was built under `torch.device("meta")`.

    With the same state of the random generator the values are those of building it directly.

    Args:
        model: All of it is replaced, whatever it held.
        device: Where it lives from now on.
    """
    model.to_empty(device=device)
    with torch.no_grad():
        for module in _children_first(model):
            reset = getattr(module, "reset_parameters", None)
            if reset is not None:
                reset()
    return model


def _children_first(module: nn.Module) -> Iterator[nn.Module]:
    """Modules in the order in which their constructors end."""
    for child in module.children():
        yield from _children_first(child)
    yield module
