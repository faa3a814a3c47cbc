from __future__ import annotations

import math

import pytest
import torch

from model.codec.vae.vae import VAECodec
from tests.factories.codec import PRINCIPAL, small_codec


def corpus() -> list[torch.Tensor]:
    """Sweeps of many speeds and levels with noise, in two batches of 4 kHz audio."""
    time_s = torch.arange(800) / 4000
    speed = torch.linspace(100, 1800, 24)[:, None]
    level = torch.logspace(-2, 0, 24)[torch.randperm(24)][:, None]
    sweeps = level * torch.sin(2 * torch.pi * speed * (1 + time_s) * time_s)
    noisy = sweeps + 0.01 * torch.randn(24, 800)
    return list(noisy[:, None].split(12))


def fitted(**changes: object) -> tuple[VAECodec, list[torch.Tensor]]:
    codec, waveforms = small_codec(**{**PRINCIPAL, "latent_dim": 7, **changes}), corpus()
    codec.start_linear(waveforms)
    return codec, waveforms


def test_latents_begin_as_whitened_principal_components() -> None:
    codec, waveforms = fitted()
    waveform = torch.cat(waveforms)
    latents = codec.encode(waveform).mean.flatten(0, 1)[:, :4]
    torch.testing.assert_close(latents.mean(0), torch.zeros(4), atol=1e-3, rtol=0.0)
    torch.testing.assert_close(latents.T.cov(correction=0), torch.eye(4), atol=1e-2, rtol=0.0)


def test_no_linear_codec_of_the_bands_is_better() -> None:
    codec, waveforms = fitted()
    encoder, decoder = codec.encoder.principal, codec.decoder.principal
    assert encoder is not None
    assert decoder is not None
    logs = codec.encoder.stem.log_magnitudes(torch.cat(waveforms))
    bands = encoder.collect(logs).flatten(0, 1)
    ours = torch.nn.functional.linear(
        torch.nn.functional.linear(bands, encoder.weight, encoder.bias),
        decoder.weight,
        decoder.bias,
    )
    centred = bands - bands.mean(0)
    _, singular, _ = torch.linalg.svd(centred, full_matrices=False)
    least = singular[4:].square().sum()
    torch.testing.assert_close((ours - bands).square().sum(), least, rtol=1e-2, atol=0.0)


def test_the_network_begins_at_nothing_and_can_learn() -> None:
    codec, waveforms = fitted()
    assert codec.decoder.principal is not None
    latents = codec.encode(waveforms[0]).mean
    predicted = codec.decoder.predict(latents)
    linear, _ = codec.decoder.principal(latents)
    shift = predicted.log_magnitude - linear
    torch.testing.assert_close(shift, shift.mean().expand_as(shift), atol=1e-4, rtol=0.0)
    predicted.log_magnitude.sum().backward()
    assert codec.decoder.head.project.weight.grad is not None
    assert bool(codec.decoder.head.project.weight.grad.any())
    trained = {name for name, value in codec.named_parameters() if value.requires_grad}
    assert not any("principal" in name for name in trained)


def test_weak_components_are_given_more_noise() -> None:
    codec, waveforms = fitted()
    components = codec.encoder.start_linear(waveforms)
    biases = codec.encoder.posterior.bias[7:11]
    wanted = (0.2 / components.deviation).clamp(max=0.4).log().float()
    torch.testing.assert_close(biases, wanted)
    assert bool((biases.diff() >= 0).all())


def test_a_comb_helps_where_there_is_a_pitch() -> None:
    """At 16 kHz, where partials of a voice lie bins apart."""
    angle = 2 * math.pi * torch.linspace(100, 300, 12)[:, None] * torch.arange(3200) / 16_000
    voices = sum((order * angle).cos() / order for order in range(1, 11))
    waveform = (0.1 * voices + 0.003 * torch.randn(12, 3200))[:, None]
    shape = {"sample_rate": 16_000, "stem_stride": 160, "stem_kernel": 640, "head_hop": 160,
             "head_window": 640, "patch_frames": 2, "principal_bands": 20}  # fmt: skip
    codec = small_codec(**{**PRINCIPAL, "latent_dim": 7, **shape})
    codec.start_linear([waveform])
    assert codec.encoder.principal is not None
    assert codec.decoder.principal is not None
    logs = codec.encoder.stem.log_magnitudes(waveform)
    with_comb, comb = codec.decoder.principal(codec.encoder.principal(logs))
    without = with_comb - codec.decoder.principal.gain[:, None] * comb[:, None]
    low = slice(8, 80)
    missed, missed_without = ((part - logs)[..., low].std() for part in (with_comb, without))
    assert float(missed) < 0.8 * float(missed_without)


def test_the_same_waveforms_give_the_same_codec() -> None:
    torch.manual_seed(5)
    first, _ = fitted()
    torch.manual_seed(5)
    second, _ = fitted()
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_a_codec_without_bands_cannot_start_linear() -> None:
    with pytest.raises(ValueError, match="no principal_bands"):
        small_codec().start_linear(corpus())


def test_every_bin_is_covered_by_bands() -> None:
    codec = small_codec(**{**PRINCIPAL, "principal_bands": 30})
    assert codec.encoder.principal is not None
    shares = codec.encoder.principal.spread.sum(dim=1)
    torch.testing.assert_close(shares, torch.ones_like(shares))


def test_half_precision_around_it_changes_nothing_here() -> None:
    codec, waveforms = fitted()
    assert codec.encoder.principal is not None
    assert codec.decoder.principal is not None
    logs = codec.encoder.stem.log_magnitudes(waveforms[0])
    latents = codec.encoder.principal(logs)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(codec.encoder.principal(logs), latents)
        drawn, _ = codec.decoder.principal(latents)
    assert torch.equal(drawn, codec.decoder.principal(latents)[0])
