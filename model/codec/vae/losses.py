"""Losses of the codec: spectra at several resolutions, mel bands, and the KL of the latents.

All spectra are float32. Stereo is compared as mid and side at full weight and as left and right at
half: a codec that only pleases left and right may lose the width of the image unnoticed.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from model.codec.mel import mel_filters
from model.codec.protocol import Posterior
from model.codec.spectrum import QUIETEST, window_energy
from model.codec.vae.istft import MAX_MAGNITUDE, HeadSpectrum, SpectralHead
from model.codec.vae.vae import VAECodec

_QUIETEST = 1e-2
"""Mean magnitude that quieter targets are treated as, so that near-silence does not dominate."""
_STEREO_WEIGHTS = (1.0, 1.0, 0.5, 0.5)


@dataclass(frozen=True, kw_only=True)
class CodecLossConfig:
    """Weights and resolutions of the reconstruction loss."""

    window_lengths: tuple[int, ...] = (2048, 1024, 512, 256, 128, 64)
    """Windows of the multi-resolution STFT, samples; the hop is a quarter."""
    log_magnitude: float = 1.0
    """Weight of the L1 distance of log magnitudes: quiet parts count as much as loud ones."""
    linear_magnitude: float = 1.0
    """Weight of the L1 distance of magnitudes, relative to the loudness of the target."""
    phase: float = 0.5
    """Weight of the distance of compressed complex spectra: magnitude and phase together."""
    phase_exponent: float = 0.3
    """Compression of magnitudes in the phase term, within (0, 1]."""
    mel: float = 1.0
    """Weight of the L1 distance of log-mel bands."""
    mel_window: int = 1024
    """Window of the mel spectrum, samples; the hop is a quarter."""
    num_mels: int = 80
    """Mel bands."""
    floor: float = 1e-3
    """Magnitude below which logarithms do not look, relative to full scale: -60 dB. A lower one
    lets quiet bins next to loud ones rule the gradient."""
    head_floor: float = QUIETEST
    """The same for `head_magnitude`, whose gradient the quietest bin cannot inflate."""
    head_magnitude: float = 1.0
    """Weight of the L1 distance of the spectral head's log magnitudes from those of the target at
    its own frames: a gradient that no phase disturbs. Only in training."""
    head_mel: float = 1.0
    """Weight of the L1 distance of log-mel bands of the same magnitudes."""
    kl: float = 1e-2
    """Weight of the KL divergence to a standard Gaussian, mean over latents."""

    def __post_init__(self) -> None:
        if not self.window_lengths or min(self.window_lengths) < 16:
            raise ValueError(f"window_lengths {self.window_lengths}: give at least one, each >= 16")
        if any(length % 4 for length in (*self.window_lengths, self.mel_window)):
            raise ValueError(
                f"window_lengths {self.window_lengths} must be multiples of 4; the hop is a quarter"
            )
        for name in (
            "log_magnitude",
            "linear_magnitude",
            "phase",
            "mel",
            "kl",
            "head_magnitude",
            "head_mel",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")
        for name in ("floor", "head_floor"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} is outside (0, 1)")
        if not 0 < self.phase_exponent <= 1:
            raise ValueError(f"phase_exponent {self.phase_exponent} is outside (0, 1]")
        if self.num_mels <= 0:
            raise ValueError(f"num_mels is {self.num_mels}; it must be positive")

    @property
    def compares_waveforms(self) -> bool:
        """Whether a term compares waveforms; if none does, training need not synthesize them."""
        return any((self.log_magnitude, self.linear_magnitude, self.phase, self.mel))


class CodecObjective(nn.Module):
    """A codec and its loss as one module, so that data-parallel training wraps both.

    Args:
        codec: The codec to train.
        config: Terms of the loss.
        latent_noise: Noise on the latents in training, relative to their spread.
    """

    def __init__(self, codec: VAECodec, config: CodecLossConfig, latent_noise: float) -> None:
        super().__init__()
        self.codec, self.config, self.latent_noise = codec, config, latent_noise

    def forward(
        self,
        waveform: Float[Tensor, "batch channels samples"],
        noise: Float[Tensor, "2 batch frames latent_dim"],
        wants_waveform: bool = False,
    ) -> tuple[dict[str, Float[Tensor, ""]], Float[Tensor, "batch channels samples"] | None]:
        """Losses of reconstructing `waveform`, a whole number of frames, and the reconstruction.

        Args:
            waveform: What is encoded and compared with.
            noise: Standard Gaussian: the posterior's draw, then the regularising noise.
            wants_waveform: Whether to reconstruct even if no term of the loss compares waveforms.
        """
        posterior = Posterior(*self.codec.encoder(waveform))
        latents = posterior.mean + posterior.log_std.float().exp() * noise[0]
        latents = regularised(latents, noise[1], self.latent_noise)
        return decoding_losses(
            self.codec, waveform, posterior, latents, self.config, wants_waveform
        )


def decoding_losses(
    codec: VAECodec,
    waveform: Float[Tensor, "batch channels samples"],
    posterior: Posterior,
    latents: Float[Tensor, "batch frames latent_dim"],
    config: CodecLossConfig,
    wants_waveform: bool = False,
) -> tuple[dict[str, Float[Tensor, ""]], Float[Tensor, "batch channels samples"] | None]:
    """Every term of decoding `latents`, unweighted, and their weighted sum as `total`.

    With the reconstruction, which is made if a term compares it or `wants_waveform`, else None.
    """
    predicted = codec.decoder.predict(latents)
    with torch.autocast(waveform.device.type, enabled=False):
        output = (
            codec.decoder.synthesize(predicted)
            if wants_waveform or config.compares_waveforms
            else None
        )
        terms = head_distances(
            codec.decoder.head, predicted, waveform, config, codec.timebase.sample_rate
        )
        total = sum((getattr(config, name) * term for name, term in terms.items()))
        if output is not None and config.compares_waveforms:
            heard = codec_losses(output, waveform, posterior, config, codec.timebase.sample_rate)
        else:
            kl = kl_divergence(posterior)
            heard = {"total": config.kl * kl, "kl": kl}
        return heard | terms | {"total": heard["total"] + total}, output


def codec_losses(
    output: Float[Tensor, "batch channels samples"],
    target: Float[Tensor, "batch channels samples"],
    posterior: Posterior,
    config: CodecLossConfig,
    sample_rate: int,
) -> dict[str, Float[Tensor, ""]]:
    """Every term, unweighted, and their weighted sum as `total`; means over the batch."""
    spectral = [
        spectral_distances(mine, theirs, config, sample_rate)
        for mine, theirs in zip(views(output), views(target), strict=True)
    ]
    weights = _STEREO_WEIGHTS if len(spectral) > 1 else (1.0,)
    terms = {
        name: sum(
            (w * view[name] for w, view in zip(weights, spectral, strict=True)),
            start=output.new_zeros(()),
        )
        / sum(weights)
        for name in spectral[0]
    }
    terms["kl"] = kl_divergence(posterior)
    total = sum((getattr(config, name) * term for name, term in terms.items()), terms["kl"] * 0)
    return {"total": total, **terms}


def views(
    waveform: Float[Tensor, "batch channels samples"],
) -> list[Float[Tensor, "batch samples"]]:
    """Signals that are compared: the channel of mono; mid, side, left and right of stereo."""
    if waveform.shape[1] == 1:
        return [waveform[:, 0]]
    left, right = waveform[:, 0], waveform[:, 1]
    return [(left + right) / 2, (left - right) / 2, left, right]


def spectral_distances(
    output: Float[Tensor, "batch samples"],
    target: Float[Tensor, "batch samples"],
    config: CodecLossConfig,
    sample_rate: int,
) -> dict[str, Tensor]:
    """Log-magnitude, magnitude, phase and mel terms of one view, mean over resolutions."""
    with torch.no_grad():
        wanted = _spectra(target, config)
    names = ("log_magnitude", "linear_magnitude", "phase")
    sums = dict.fromkeys(names, output.new_zeros((), dtype=torch.float32))
    mel = sums["phase"]
    for length, (spectrum, magnitude) in _spectra(output, config).items():
        if length == config.mel_window:
            mine, theirs = (
                log_mel(part, config, sample_rate) for part in (magnitude, wanted[length][1])
            )
            mel = (mine - theirs).abs().mean()
        if length not in config.window_lengths:
            continue
        distances = _distances(spectrum, magnitude, *wanted[length], config)
        for name, distance in zip(names, distances, strict=True):
            sums[name] = sums[name] + distance / len(config.window_lengths)
    return {**sums, "mel": mel}


def _spectra(
    waveform: Float[Tensor, "batch samples"], config: CodecLossConfig
) -> dict[int, tuple[Tensor, Tensor]]:
    """Spectrum, and magnitude above the floor, of every window length that is compared."""
    spectra = {}
    for length in dict.fromkeys((*config.window_lengths, config.mel_window)):
        spectrum = stft(waveform.float(), length)
        spectra[length] = (spectrum, spectrum.abs().clamp(min=config.floor))
    return spectra


def _distances(
    spectrum: Tensor,
    magnitude: Tensor,
    target_spectrum: Tensor,
    target_magnitude: Tensor,
    config: CodecLossConfig,
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-magnitude, magnitude and phase distance at one window length."""
    loudness = target_magnitude.mean(dim=(1, 2), keepdim=True).clamp(min=_QUIETEST)
    if config.phase:
        mine, theirs = (
            torch.view_as_real(complex_) * size.pow(config.phase_exponent - 1)[..., None]
            for complex_, size in ((spectrum, magnitude), (target_spectrum, target_magnitude))
        )
        phase = (mine - theirs).abs().mean()
    else:
        phase = magnitude.new_zeros(())
    return (
        (magnitude.log() - target_magnitude.log()).abs().mean(),
        ((magnitude - target_magnitude).abs() / loudness).mean(),
        phase,
    )


def head_distances(
    head: SpectralHead,
    predicted: HeadSpectrum,
    target: Float[Tensor, "batch channels samples"],
    config: CodecLossConfig,
    sample_rate: int,
) -> dict[str, Float[Tensor, ""]]:
    """Distances of what the spectral head predicts from the spectra of the target.

    Source:
        Supervising magnitude spectra by themselves: APNet, arXiv:2305.07952, section III-C.
    """
    floor = config.head_floor * window_energy(head.window_length)
    size = head.analyse(target).abs().clamp(min=floor)
    # What the target has below the floor may lie anywhere below it; what it has above pulls always.
    allowed = predicted.log_magnitude.clamp(min=math.log(floor))
    mine = torch.where(size > floor, predicted.log_magnitude, allowed)
    terms = {"head_magnitude": (mine - size.log()).abs().mean()}
    if config.head_mel:
        filters = mel_filters(config.num_mels, head.window_length, sample_rate).to(size.device)
        ours, theirs = (
            (part @ filters.T).clamp(min=floor).log()
            for part in (predicted.log_magnitude.clamp(max=math.log(MAX_MAGNITUDE)).exp(), size)
        )
        terms["head_mel"] = (ours - theirs).abs().mean()
    return terms


def kl_divergence(posterior: Posterior) -> Float[Tensor, ""]:
    """KL divergence of the posterior from a standard Gaussian, nats per latent.

    Source:
        Auto-encoding variational Bayes, arXiv:1312.6114, appendix B.
    """
    mean, log_std = posterior.mean.float(), posterior.log_std.float()
    return (0.5 * (mean.square() + (2 * log_std).exp() - 1) - log_std).mean()


def regularised(
    latents: Float[Tensor, "batch frames latent_dim"],
    noise: Float[Tensor, "batch frames latent_dim"],
    scale: float,
) -> Float[Tensor, "batch frames latent_dim"]:
    """Latents with noise of `scale` times their own spread, per dimension.

    The decoder learns to forgive what a generator gets slightly wrong, at whatever scale the
    encoder has chosen for its latents; the KL term alone can be escaped by small variances.
    """
    spread = latents.detach().float().std(dim=(0, 1), correction=0)
    return latents + scale * spread.to(latents.dtype) * noise


def stft(waveform: Float[Tensor, "batch samples"], window_length: int) -> torch.Tensor:
    """Complex spectrum `batch bins seq`, Hann window, hop of a quarter, unit window energy."""
    window = _hann(window_length, waveform.device)
    return torch.stft(
        waveform,
        window_length,
        window_length // 4,
        window=window,
        center=True,
        pad_mode="constant",
        return_complex=True,
    )


def log_mel(
    magnitude: Float[Tensor, "batch bins seq"], config: CodecLossConfig, sample_rate: int
) -> Float[Tensor, "batch mels seq"]:
    """Natural logarithm of mel bands of the magnitudes at `mel_window`."""
    filters = mel_filters(config.num_mels, config.mel_window, sample_rate).to(magnitude.device)
    return (filters @ magnitude).clamp(min=config.floor).log()


@functools.lru_cache(maxsize=32)
def _hann(window_length: int, device: torch.device) -> Tensor:
    window = torch.hann_window(window_length, device=device)
    return window / window.square().sum().sqrt()
