"""Adversarial terms of codec training: hinge losses and feature matching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from model.codec.vae.discriminator import Discriminators, Judgement


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig:
    """When the discriminators join, and what they weigh."""

    start_step: int | None = None
    """Steps of reconstruction alone before the discriminators join; None is never."""
    weight: float = 0.1
    """Weight of the codec's hinge term, relative to the reconstruction terms."""
    feature_matching: float = 5.0
    """Weight of the feature-matching term."""
    learning_rate: float = 3e-4
    """Peak rate of the discriminators; follows the schedule of the codec."""

    def __post_init__(self) -> None:
        if self.start_step is not None and self.start_step < 0:
            raise ValueError(f"start_step is {self.start_step}; it must not be negative")
        for name in ("weight", "feature_matching"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be positive")

    def is_due(self, step: int) -> bool:
        """Whether the discriminators take part in the step after `step` steps."""
        return self.start_step is not None and step >= self.start_step


class DiscriminatorObjective(nn.Module):
    """Discriminators and their loss as one module, so that data-parallel training wraps both."""

    def __init__(self, discriminators: Discriminators) -> None:
        super().__init__()
        self.discriminators = discriminators

    def forward(
        self,
        real: Float[Tensor, "batch channels samples"],
        fake: Float[Tensor, "batch channels samples"],
    ) -> Float[Tensor, ""]:
        """Hinge loss of telling recordings from reconstructions; `fake` gets no gradient."""
        return discriminator_hinge(self.discriminators(real), self.discriminators(fake.detach()))


def codec_terms(
    discriminators: Discriminators,
    real: Float[Tensor, "batch channels samples"],
    fake: Float[Tensor, "batch channels samples"],
) -> dict[str, Float[Tensor, ""]]:
    """The codec's `adversarial` and `feature_matching` terms, unweighted.

    The discriminators must be frozen by the caller: their gradients are not wanted here.
    """
    with torch.no_grad():
        wanted = discriminators(real)
    judged = discriminators(fake)
    return {
        "adversarial": codec_hinge(judged),
        "feature_matching": feature_distance(judged, wanted),
    }


def discriminator_hinge(real: Sequence[Judgement], fake: Sequence[Judgement]) -> Float[Tensor, ""]:
    """Hinge loss of the discriminators, mean over them.

    Source:
        Geometric GAN, arXiv:1705.02894, Eq. 18.
    """
    losses = [
        F.relu(1 - yes.float()).mean() + F.relu(1 + no.float()).mean()
        for (yes, _), (no, _) in zip(real, fake, strict=True)
    ]
    return torch.stack(losses).mean()


def codec_hinge(fake: Sequence[Judgement]) -> Float[Tensor, ""]:
    """Generator loss of the codec, mean over the discriminators.

    Source:
        Geometric GAN, arXiv:1705.02894, Eq. 19.
    """
    return torch.stack([-score.float().mean() for score, _ in fake]).mean()


def feature_distance(fake: Sequence[Judgement], real: Sequence[Judgement]) -> Float[Tensor, ""]:
    """L1 distance of features relative to their size, mean over layers and discriminators.

    Source:
        EnCodec, arXiv:2210.13438, Eq. 3.
    """
    distances = [
        (mine - theirs).abs().float().mean() / theirs.abs().float().mean().clamp(min=1e-6)
        for (_, ours), (_, wanted) in zip(fake, real, strict=True)
        for mine, theirs in zip(ours, wanted, strict=True)
    ]
    return torch.stack(distances).mean()
