from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch.distributions import Normal
from torch.distributions import kl_divergence as reference_kl

from model.codec.protocol import Posterior
from model.codec.vae.istft import HeadSpectrum
from model.codec.vae.losses import (
    CodecLossConfig,
    CodecObjective,
    codec_losses,
    head_distances,
    kl_divergence,
    regularised,
    spectral_distances,
    views,
)
from tests.factories.codec import small_codec

CONFIG = CodecLossConfig(
    window_lengths=(64, 32), mel_window=128, num_mels=10, floor=1e-6, head_floor=1e-6
)


def posterior() -> Posterior:
    return Posterior(mean=torch.randn(2, 3, 4), log_std=torch.randn(2, 3, 4))


def test_kl_is_that_of_torch_distributions() -> None:
    given = posterior()
    expected = reference_kl(Normal(given.mean, given.log_std.exp()), Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(kl_divergence(given), expected)


def test_equal_waveforms_cost_nothing_but_kl() -> None:
    waveform = torch.randn(2, 2, 500)
    losses = codec_losses(waveform, waveform.clone(), posterior(), CONFIG, 4000)
    kl = losses.pop("kl")
    torch.testing.assert_close(losses.pop("total"), CONFIG.kl * kl)
    # batches of different sums: the last bit of an STFT may differ
    assert all(float(value) < 1e-6 for value in losses.values())


def test_a_change_of_level_costs_its_logarithm() -> None:
    waveform = torch.randn(2, 600)
    terms = spectral_distances(waveform / 10, waveform, CONFIG, 4000)
    # no bin of loud noise is near the floor
    assert terms["log_magnitude"] == pytest.approx(math.log(10), rel=1e-3)
    assert terms["mel"] == pytest.approx(math.log(10), rel=1e-3)
    assert terms["linear_magnitude"] == pytest.approx(0.9, rel=1e-3)


def test_magnitude_terms_agree_with_a_plain_stft() -> None:
    output, target = torch.randn(2, 1, 400)
    config = CodecLossConfig(window_lengths=(64,), mel_window=64, num_mels=10, phase_exponent=1.0)
    terms = spectral_distances(output, target, config, 4000)
    window = torch.hann_window(64)
    window = window / window.square().sum().sqrt()
    mine, theirs = (
        torch.stft(w, 64, 16, window=window, return_complex=True, pad_mode="constant")
        for w in (output, target)
    )
    linear = (mine.abs() - theirs.abs()).abs().mean() / theirs.abs().mean()
    torch.testing.assert_close(terms["linear_magnitude"], linear, rtol=1e-3, atol=1e-4)
    difference = torch.view_as_real(mine - theirs).abs().mean()
    torch.testing.assert_close(terms["phase"], difference, rtol=1e-3, atol=1e-4)


def test_only_the_phase_term_hears_a_flipped_sign() -> None:
    waveform = torch.randn(1, 500)
    terms = spectral_distances(-waveform, waveform, CONFIG, 4000)
    assert terms["phase"] > 0.5
    assert terms["log_magnitude"] < 1e-5
    assert terms["mel"] < 1e-5


def test_stereo_is_heard_as_mid_side_left_and_right() -> None:
    stereo = torch.randn(1, 2, 300)
    mid, side, left, right = views(stereo)
    torch.testing.assert_close(mid + side, left)
    torch.testing.assert_close(mid - side, right)
    swapped = codec_losses(stereo.flip(1), stereo, posterior(), CONFIG, 4000)
    narrowed = codec_losses(stereo.mean(1, keepdim=True).expand_as(stereo), stereo, posterior(),
                            CONFIG, 4000)  # fmt: skip
    assert swapped["mel"] > 0
    # lost width leaves a silent side, far more than a swap of channels
    assert narrowed["mel"] > 2 * swapped["mel"]


def test_the_head_is_taught_magnitudes_that_no_phase_disturbs() -> None:
    head = small_codec(head_phase="propagated").decoder.head
    target = torch.randn(2, 1, 400)
    logs = head.analyse(target).abs().log()
    found = head_distances(head, HeadSpectrum(logs, None), target, CONFIG, 4000)
    assert found.keys() == {"head_magnitude", "head_mel"}
    assert all(float(value) < 1e-5 for value in found.values())
    wrong = HeadSpectrum(logs - 0.5, torch.randn(logs.shape))
    found = head_distances(head, wrong, target, CONFIG, 4000)
    assert float(found["head_magnitude"]) == pytest.approx(0.5, rel=1e-4)
    assert float(found["head_mel"]) == pytest.approx(0.5, rel=1e-4)
    config = dataclasses.replace(CONFIG, head_mel=0.0)
    assert head_distances(head, wrong, target, config, 4000).keys() == {"head_magnitude"}


def test_no_waveform_is_made_that_no_term_compares() -> None:
    codec = small_codec(head_phase="propagated")
    silent = dataclasses.replace(
        CONFIG, log_magnitude=0.0, linear_magnitude=0.0, phase=0.0, mel=0.0
    )
    waveform, noise = torch.randn(2, 1, 160), torch.zeros(2, 2, 2, 4)
    losses, output = CodecObjective(codec, silent, 0.0)(waveform, noise)
    assert output is None
    names = {"kl", "head_magnitude", "head_mel"}
    assert losses.keys() == {*names, "total"}
    expected = sum(getattr(silent, name) * losses[name] for name in names)
    torch.testing.assert_close(losses["total"], expected)
    again, output = CodecObjective(codec, silent, 0.0)(waveform, noise, wants_waveform=True)
    assert output is not None
    assert output.shape == waveform.shape
    torch.testing.assert_close(again["total"], losses["total"])
    heard, _ = CodecObjective(codec, CONFIG, 0.0)(waveform, noise)
    assert {"mel", "phase"} < heard.keys()


def test_a_magnitude_below_the_floor_is_pulled_up_only_where_the_target_is_loud() -> None:
    head = small_codec().decoder.head
    target = torch.zeros(1, 1, 400)
    target[..., 200:] = torch.randn(200)
    log_magnitude = torch.full(head.analyse(target).shape, -30.0, requires_grad=True)
    predicted = HeadSpectrum(log_magnitude, torch.zeros_like(log_magnitude))
    head_distances(head, predicted, target, CONFIG, 4000)["head_magnitude"].backward()
    assert log_magnitude.grad is not None
    assert not log_magnitude.grad[:, :, :15].any()
    assert bool((log_magnitude.grad[:, :, -10:] < 0).all())


def test_silence_has_finite_losses_and_gradients() -> None:
    output = torch.zeros(1, 1, 400, requires_grad=True)
    losses = codec_losses(output, torch.zeros(1, 1, 400), posterior(), CONFIG, 4000)
    losses["total"].backward()
    assert losses["total"].isfinite()
    assert output.grad is not None
    assert output.grad.isfinite().all()


def test_the_total_is_the_weighted_sum() -> None:
    output, target = torch.randn(2, 2, 1, 300)
    config = CodecLossConfig(window_lengths=(32,), mel_window=32, num_mels=6, mel=3.0, phase=0.25)
    losses = codec_losses(output, target, posterior(), config, 4000)
    names = ("log_magnitude", "linear_magnitude", "phase", "mel", "kl")
    expected = sum(getattr(config, name) * losses[name] for name in names)
    torch.testing.assert_close(losses["total"], expected)


def test_rows_of_a_batch_are_averaged() -> None:
    output, target = torch.randn(2, 4, 1, 300)
    whole = spectral_distances(output[:, 0], target[:, 0], CONFIG, 4000)
    halves = [
        spectral_distances(output[rows, 0], target[rows, 0], CONFIG, 4000)
        for rows in (slice(0, 2), slice(2, 4))
    ]
    for name, value in whole.items():
        torch.testing.assert_close(value, (halves[0][name] + halves[1][name]) / 2)


def test_latent_noise_scales_with_the_spread_of_each_dimension() -> None:
    latents = torch.randn(50, 20, 3) * torch.tensor([0.1, 1.0, 10.0])
    noise = torch.randn(50, 20, 3)
    added = regularised(latents, noise, 0.5) - latents
    expected = torch.tensor([0.05, 0.5, 5.0])
    torch.testing.assert_close(added.std(dim=(0, 1)), expected, rtol=0.15, atol=0.0)
    assert torch.equal(regularised(latents, noise, 0.0), latents)


@pytest.mark.parametrize(
    "values",
    [
        {"window_lengths": ()},
        {"window_lengths": (30,)},
        {"mel": -1.0},
        {"phase_exponent": 0.0},
        {"num_mels": 0},
        {"floor": 0.0},
        {"head_floor": 1.0},
        {"head_mel": -1.0},
    ],
)
def test_wrong_loss_settings_are_refused(values: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(values)).split("_")[0]):
        CodecLossConfig(**values)


def test_one_clip_is_learnt() -> None:
    codec = small_codec(head_channels=24, head_window=80).train()
    objective = CodecObjective(codec, CodecLossConfig(window_lengths=(128, 64, 32), mel_window=128,
                               num_mels=20), latent_noise=0.0)  # fmt: skip
    time_s = torch.arange(800) / 4000
    clip = 0.3 * torch.sin(2 * torch.pi * (200 + 1500 * time_s) * time_s)[None, None]
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-2)
    totals = []
    for _ in range(60):
        losses, _ = objective(clip, torch.zeros(2, 1, 10, 4))
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()
        totals.append(float(losses["total"].detach()))
    assert totals[-1] < 0.5 * totals[0]
