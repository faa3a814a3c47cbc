from __future__ import annotations

import pytest
import torch

from model.codec.vae.codec_config import CODEC_PRESETS
from model.codec.vae.discriminator import (
    DISCRIMINATOR_PRESETS,
    DiscriminatorConfig,
    Discriminators,
    PeriodDiscriminator,
    discriminator_config,
)

SMALL = DiscriminatorConfig(
    window_lengths=(64, 32), spectral_channels=4, periods=(2, 5), period_channels=2
)


@pytest.mark.parametrize("num_channels", [1, 2])
def test_scores_and_features_have_the_shapes_of_their_views(num_channels: int) -> None:
    waveform = torch.randn(3, num_channels, 203)
    judgements = Discriminators(SMALL, num_channels)(waveform)
    assert len(judgements) == 4
    (spectral, seen), *_ = judgements
    # 203 samples at hop 16 are 13 centred frames; 33 bins are halved three times
    assert spectral.shape == (3, 1, 13, 5)
    assert [feature.shape[1:] for feature in seen] == [
        (4, 13, 33), (4, 13, 17), (4, 13, 9), (4, 13, 5), (4, 13, 5),
    ]  # fmt: skip
    period, seen = judgements[3]
    # 203 samples are padded to 41 rows of 5; four strides of 3 leave one; a row per view
    assert period.shape == (3 * num_channels, 1, 1, 5)
    assert [feature.shape[1] for feature in seen] == [2, 8, 32, 64, 64]


def test_every_parameter_and_the_waveform_get_a_gradient() -> None:
    discriminators = Discriminators(SMALL, 2)
    waveform = torch.randn(2, 2, 400, requires_grad=True)
    sum(score.square().mean() for score, _ in discriminators(waveform)).backward()
    assert waveform.grad is not None
    assert bool((waveform.grad.abs().amax(dim=-1) > 0).all())
    for name, parameter in discriminators.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name


def test_spectra_are_judged_with_their_phase() -> None:
    member = Discriminators(SMALL, 1).members[0]
    waveform = torch.randn(1, 1, 400)
    assert not torch.allclose(member(waveform)[0], member(-waveform)[0], atol=1e-4)


def test_periods_judge_mid_and_side_apart() -> None:
    member = PeriodDiscriminator(3, 2)
    left, right = torch.randn(2, 1, 1, 300)
    both, _ = member(torch.cat([left, right], dim=1))
    mid, _ = member((left + right) / 2)
    side, _ = member((left - right) / 2)
    torch.testing.assert_close(both, torch.cat([mid, side]))


def test_the_seed_fixes_the_weights() -> None:
    first, same, other = (Discriminators(SMALL, 1, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_every_codec_preset_has_discriminators() -> None:
    assert DISCRIMINATOR_PRESETS.keys() == CODEC_PRESETS.keys()
    assert DISCRIMINATOR_PRESETS["paper"].periods == (2, 3, 5, 7, 11)
    changed = discriminator_config("tiny", {"periods": [2], "spectral_channels": 3})
    assert (changed.periods, changed.spectral_channels) == ((2,), 3)


@pytest.mark.parametrize(
    ("preset", "changes", "message"),
    [
        ("huge", {}, "no discriminator preset 'huge'"),
        ("tiny", {"colour": 1}, "unknown setting colour"),
        ("tiny", {"window_lengths": [30]}, "window_lengths"),
        ("tiny", {"periods": [1]}, "periods"),
        ("tiny", {"periods": [], "window_lengths": []}, "no discriminators"),
        ("tiny", {"spectral_channels": 0}, "spectral_channels is 0"),
    ],
)
def test_wrong_shapes_are_refused(preset: str, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        discriminator_config(preset, changes)
