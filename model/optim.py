"""Optimisation as plain values: parameter groups, the learning-rate schedule and weight averaging.

Everything is a function of the step, so that a resumed run needs nothing but its step number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from model.config import require_positive


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW, its schedule, and the moving average that is released."""

    num_steps: int = 300_000
    """Optimiser steps of the whole run; the schedule ends there."""
    learning_rate: float = 3e-4
    """Peak rate of modules trained from nothing: expert, head, latent projections."""
    backbone_multiplier: float = 1.0
    """Rate of the backbone's layers relative to `learning_rate`; below 1 for pretrained weights."""
    embedding_multiplier: float = 1.0
    """Rate of the token embedding relative to `learning_rate`; 0 freezes it."""
    warmup_steps: int = 2000
    """Steps of linear warm-up."""
    decay_share: float = 0.15
    """Share of the run, at its end, in which the rate falls; 0 keeps it constant."""
    final_share: float = 0.1
    """Rate at the last step relative to the peak."""
    decay: Literal["linear", "cosine"] = "linear"
    """Shape of the fall."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay of AdamW's first and second moment."""
    epsilon: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 0.1
    """Decoupled decay of matrices; norms, biases and embeddings have none."""
    clip_norm: float = 1.0
    """Largest gradient norm over all parameters; 0 never clips."""
    ema_decay: float = 0.999
    """Decay of the weight average a step, reached gradually; 0 keeps the latest weights."""

    def __post_init__(self) -> None:
        require_positive(self, "num_steps", "learning_rate", "epsilon")
        multipliers = ("backbone_multiplier", "embedding_multiplier")
        for name in ("warmup_steps", "weight_decay", "clip_norm", *multipliers):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")
        for name in ("decay_share", "final_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, outside [0, 1]")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}, outside [0, 1)")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas {self.betas} must lie in [0, 1)")


def rate_share(step: int, config: OptimConfig) -> float:
    """Learning rate of a step, 0 for the first update, relative to the peak: warm-up, plateau,
    fall."""
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    decay_steps = round(config.decay_share * config.num_steps)
    start = config.num_steps - decay_steps
    if step < start or decay_steps == 0:
        return warmup
    progress = min(1.0, (step + 1 - start) / decay_steps)
    if config.decay == "cosine":
        progress = 0.5 - 0.5 * math.cos(math.pi * progress)
    return warmup * (1 - (1 - config.final_share) * progress)


def set_rates(groups: Sequence[dict[str, Any]], step: int, config: OptimConfig) -> float:
    """Give every parameter group its rate for a step; returns the rate of new modules."""
    rate = config.learning_rate * rate_share(step, config)
    for group in groups:
        group["lr"] = rate * group["multiplier"]
    return rate


def parameter_groups(
    model: nn.Module,
    config: OptimConfig,
    shape_of: Callable[[nn.Parameter], Sequence[int]] = lambda parameter: parameter.shape,
) -> list[dict[str, Any]]:
    """Parameters by rate and decay; frozen parameters are left out.

    The backbone is the submodule `backbone`, without its experts, its embedding and the adapters of
    peft: what published weights can fill. Groups come in a fixed order, and a group without members
    is left out. `shape_of` gives the shape of a whole parameter, which a shard does not show.
    """
    embeddings = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
    }
    multipliers = {
        "embedding": config.embedding_multiplier,
        "backbone": config.backbone_multiplier,
        "new": 1.0,
    }
    members: dict[tuple[str, bool], list[nn.Parameter]] = {
        (kind, decays): [] for kind in multipliers for decays in (True, False)
    }
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_embedding = id(parameter) in embeddings
        kind = "embedding" if is_embedding else _kind(name)
        # The gains of a norm over channels are a column: one axis, whatever the number of axes.
        is_matrix = sum(size > 1 for size in shape_of(parameter)) >= 2
        members[kind, is_matrix and not is_embedding].append(parameter)
    return [
        {
            "params": parameters,
            "name": f"{kind}_{'decay' if decays else 'plain'}",
            "multiplier": multipliers[kind],
            "weight_decay": config.weight_decay if decays else 0.0,
            "lr": config.learning_rate * multipliers[kind],
        }
        for (kind, decays), parameters in members.items()
        if parameters
    ]


def adamw(groups: list[dict[str, Any]], config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over parameter groups, in one fused pass over the memory."""
    return torch.optim.AdamW(
        groups, lr=config.learning_rate, betas=config.betas, eps=config.epsilon, fused=True
    )


def average_decay(step: int, config: OptimConfig) -> float:
    """Decay of the weight average at a step: short at first, so that early weights fade."""
    return min(config.ema_decay, (1 + step) / (10 + step))


@torch.no_grad()
def update_average(average: Sequence[Tensor], weights: Sequence[Tensor], decay: float) -> None:
    """Move an average of weights, in place: average <- decay * average + (1 - decay) * weights."""
    torch._foreach_lerp_(list(average), list(weights), 1 - decay)


def _kind(name: str) -> str:
    is_published = name.startswith("backbone.") and "expert" not in name and ".lora_" not in name
    return "backbone" if is_published else "new"
