"""Layers shared by backbone and heads, and the initialisation of a model on the meta device.

Every class that owns parameters sets their initial values in `reset_parameters`, and those of no
other class. So a model can be built without memory and initialised module by module, and each
module can be sharded before the next one takes memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

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


class SwiGLU(nn.Module):
    """Gated feed-forward D (silu(G x) * U x).

    Args:
        hidden_dim: Width of input and output.
        inner_dim: Width between the projections.
        starts_at_zero: Whether D is zero at first.

    Source:
        arXiv:2002.05202, section 2.
    """

    def __init__(self, hidden_dim: int, inner_dim: int, *, starts_at_zero: bool = False) -> None:
        super().__init__()
        self.gate_proj = Projection(hidden_dim, inner_dim)
        self.up_proj = Projection(hidden_dim, inner_dim)
        self.down_proj: nn.Linear = (
            ZeroProjection(inner_dim, hidden_dim, bias=False)
            if starts_at_zero
            else Projection(inner_dim, hidden_dim)
        )

    def forward(self, inputs: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch hidden"]:
        """Output before the residual sum."""
        return self.down_proj(F.silu(self.gate_proj(inputs)) * self.up_proj(inputs))


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
        return self.weight * rms_normalise(inputs, self.eps)


def rms_normalise(inputs: Float[Tensor, "*batch dim"], eps: float) -> Float[Tensor, "*batch dim"]:
    """`RMSNorm` without the gain."""
    is_small = inputs.is_cpu and inputs.dtype == torch.float32
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or not is_small:
        # float32 inside; on a GPU one kernel, which saves no float32 copy for the backward pass.
        return F.rms_norm(inputs, inputs.shape[-1:], eps=eps)
    # The same in four small operations where `rms_norm` takes ten.
    return normalise_length(inputs, eps).mul_(inputs.shape[-1] ** 0.5)


def normalise_length(
    inputs: Float[Tensor, "*batch dim"], eps: float
) -> Float[Tensor, "*batch dim"]:
    """x / sqrt(|x|^2 + dim eps) in float32: `rms_normalise` without its factor sqrt(dim)."""
    length = torch.linalg.vector_norm(inputs, dim=-1, keepdim=True)
    return inputs / length.hypot_(_scalar((eps * inputs.shape[-1]) ** 0.5))


@cache
def _scalar(value: float) -> Tensor:
    return torch.tensor(value)


class _SkipInitialisation(TorchFunctionMode):
    """Leaves tensors as they are where a module would initialise them."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == nn.init.__name__:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


@contextlib.contextmanager
def shapes_only() -> Iterator[None]:
    """Build modules on the meta device: shapes and dtypes, without memory and without values.

    Initialisation is skipped. PyTorch draws random numbers for the meta device in Python, and
    imports its compiler to do so, which takes longer than to load a small model.
    """
    with torch.device("meta"), _SkipInitialisation():
        yield


def materialise(
    model: Model,
    device: torch.device | str = "cpu",
    finish: Callable[[nn.Module], None] | None = None,
) -> Model:
    """Allocate and initialise a model that was built under `shapes_only`.

    With the same state of the random generator the values are those of building it directly on
    that device.

    Args:
        model: All its tensors are replaced.
        device: Device of the new tensors.
        finish: Called with every module, children first, once its own tensors are initialised: to
            load weights into them or to shard them.
    """

    def build(module: nn.Module) -> None:
        """Give a module its own tensors on the device, initialised."""
        module.to_empty(device=device, recurse=False)
        reset = getattr(module, "reset_parameters", None)
        if reset is not None:
            reset()
        if finish is not None:
            finish(module)

    with torch.no_grad():
        return model.apply(build)  # children first, the order in which their constructors end
