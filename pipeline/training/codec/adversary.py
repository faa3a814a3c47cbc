"""The discriminators of codec training on one worker: their updates and their loss terms."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from model.codec.vae.adversarial import DiscriminatorObjective, codec_terms
from model.codec.vae.discriminator import Discriminators
from model.optim import adamw, parameter_groups, set_rates
from pipeline.training.codec.settings import TrainCodecSettings


class Adversary:
    """Discriminators, their optimiser and their gradients.

    Args:
        settings: The recipe.
        num_channels: Waveform channels of the codec.
        device: Device of the codec.
        is_parallel: Whether gradients are averaged over a process group.
    """

    def __init__(
        self, settings: TrainCodecSettings, num_channels: int, device: str, is_parallel: bool
    ) -> None:
        self.config = settings.adversarial
        self.optim = dataclasses.replace(
            settings.optim, learning_rate=self.config.learning_rate, weight_decay=0.0
        )
        shapes = settings.discriminator_config()
        self.discriminators = Discriminators(shapes, num_channels, settings.seed).to(device)
        self.optimizer = adamw(parameter_groups(self.discriminators, self.optim), self.optim)
        objective = DiscriminatorObjective(self.discriminators)
        self.objective: nn.Module = objective
        if is_parallel:
            devices = [device] if device.startswith("cuda") else None
            self.objective = DistributedDataParallel(objective, device_ids=devices)

    def differentiate(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """Compute the gradients of the discriminator loss; returns the loss and the gradient
        norm."""
        loss = self.objective(real, fake.detach())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        limit = self.optim.clip_norm or float("inf")
        norm = nn.utils.clip_grad_norm_(self.discriminators.parameters(), limit)
        return {"discriminator": loss.detach(), "discriminator_gradient_norm": norm.detach()}

    def update(self, step: int) -> None:
        """Update the discriminators with the computed gradients."""
        set_rates(self.optimizer.param_groups, step, self.optim)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def terms(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """Terms of the generator loss, unweighted, and their weighted sum as `total`."""
        with self._frozen():
            terms = codec_terms(self.discriminators, real, fake)
        weights = {
            "adversarial": self.config.weight,
            "feature_matching": self.config.feature_matching,
        }
        total = sum((weights[name] * term for name, term in terms.items()), fake.new_zeros(()))
        return {"total": total, **terms}

    def load(self, tensors: dict[str, Any]) -> None:
        """Load the weights of a checkpoint."""
        self.discriminators.load_state_dict(tensors)

    @contextmanager
    def _frozen(self) -> Iterator[None]:
        self.discriminators.requires_grad_(False)
        try:
            yield
        finally:
            self.discriminators.requires_grad_(True)
