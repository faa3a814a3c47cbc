from __future__ import annotations

import pytest
import torch

from model.codec.vae.adversarial import (
    AdversarialConfig,
    DiscriminatorObjective,
    codec_hinge,
    codec_terms,
    discriminator_hinge,
    feature_distance,
)
from model.codec.vae.discriminator import DiscriminatorConfig, Discriminators

SMALL = DiscriminatorConfig(
    window_lengths=(32,), spectral_channels=4, periods=(3,), period_channels=2
)


def judged(*scores: float) -> list:
    return [(torch.tensor([score]), []) for score in scores]


def test_hinge_losses_are_those_of_the_definition() -> None:
    real, fake = judged(2.0, 0.5), judged(-3.0, 0.25)
    # max(0, 1 - real) + max(0, 1 + fake), mean over two discriminators
    assert float(discriminator_hinge(real, fake)) == pytest.approx(((0 + 0) + (0.5 + 1.25)) / 2)
    assert float(codec_hinge(fake)) == pytest.approx((3.0 - 0.25) / 2)


def test_features_are_compared_relative_to_their_size() -> None:
    real = [(torch.zeros(1), [torch.tensor([2.0, -2.0]), torch.tensor([0.1])])]
    fake = [(torch.zeros(1), [torch.tensor([1.0, -2.0]), torch.tensor([0.2])])]
    assert float(feature_distance(fake, real)) == pytest.approx((0.25 + 1.0) / 2)
    assert float(feature_distance(real, real)) == 0


def test_discriminators_learn_from_a_waveform_that_gets_no_gradient() -> None:
    objective = DiscriminatorObjective(Discriminators(SMALL, 1))
    real, fake = torch.randn(2, 4, 1, 200)
    fake = (0.3 * fake).requires_grad_()
    optimizer = torch.optim.Adam(objective.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = objective(real, fake)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert fake.grad is None
    assert losses[-1] < 0.5 * losses[0]


def test_the_codec_gets_gradients_and_frozen_discriminators_none() -> None:
    discriminators = Discriminators(SMALL, 2)
    discriminators.requires_grad_(False)
    real, fake = torch.randn(2, 2, 2, 200)
    fake.requires_grad_()
    terms = codec_terms(discriminators, real, fake)
    assert terms.keys() == {"adversarial", "feature_matching"}
    sum(terms.values()).backward()
    assert fake.grad is not None
    assert bool((fake.grad.abs().amax(dim=-1) > 0).all())
    same = codec_terms(discriminators, real, real)
    assert float(same["feature_matching"]) == 0


def test_the_switch_is_at_the_start_step() -> None:
    config = AdversarialConfig(start_step=3)
    assert [config.is_due(step) for step in (0, 2, 3, 9)] == [False, False, True, True]
    assert not AdversarialConfig().is_due(10**9)


@pytest.mark.parametrize(
    "values",
    [{"start_step": -1}, {"weight": -0.1}, {"feature_matching": -1.0}, {"learning_rate": 0.0}],
)
def test_wrong_settings_are_refused(values: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        AdversarialConfig(**values)
