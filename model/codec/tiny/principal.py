"""Principal components and pitch: what a codec can do before it has learned anything.

A linear autoencoder of log mel bands lies beside the network. Its latents are the principal
components of the corpus, each of unit variance, and the pitch; the network begins at zero and
learns what is missing. The best linear autoencoder spans the principal components: Baldi, Hornik,
Neural Networks 2, 1989.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from model.codec.mel import mel_filters, mel_frequencies
from model.codec.spectrum import QUIETEST
from model.codec.tiny.pitch import NUM_PITCH_LATENTS, Harmonics, Pitch, from_latents, to_latents
from model.codec.vae.codec_config import CodecConfig

_LEAST_DEVIATION = 1e-2
"""Components that vary less are not blown up further: they are the rounding of silence."""


class Components(NamedTuple):
    """Principal components of the log mel bands of one latent frame.

    Attributes:
        mean: Mean log magnitude of each band, nats.
        basis: Orthonormal columns, the strongest first.
        deviation: Standard deviation along each, nats.
        offset: Mean of log magnitudes less what the components say of them, nats.
        gain: Least-squares gain of the comb of partials in each bin.
    """

    mean: Float[Tensor, " bands"]
    basis: Float[Tensor, "bands components"]
    deviation: Float[Tensor, " components"]
    offset: Float[Tensor, "channels bins"]
    gain: Float[Tensor, "channels bins"]


class _Bands(nn.Module):
    """Mel bands of the frames of one latent frame as one vector, and back."""

    pool: Tensor
    spread: Tensor

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.num_channels = config.num_channels
        self.num_bands = config.principal_bands or 0
        self.per_frame = config.timebase.hop_length // config.head_hop
        self.size = self.num_channels * self.per_frame * self.num_bands
        pool = mel_filters(self.num_bands, config.head_window, config.sample_rate)
        self.register_buffer("pool", pool, persistent=False)
        self.register_buffer("spread", _spread(pool, config), persistent=False)
        self.num_components = config.latent_dim - NUM_PITCH_LATENTS
        self.harmonics = Harmonics(config.sample_rate, pool.shape[1], self.per_frame)

    def collect(self, logs: Float[Tensor, "batch channels seq bins"]) -> Tensor:
        """Log band magnitudes, `batch frames size`."""
        bands = (logs.exp() @ self.pool.T).clamp(min=QUIETEST).log()
        return rearrange(bands, "b c (f p) m -> b f (c p m)", p=self.per_frame)

    def expand(self, bands: Float[Tensor, "batch frames size"]) -> Tensor:
        """Log magnitudes that vary smoothly over the bins, `batch channels seq bins`."""
        split = rearrange(
            bands, "b f (c p m) -> b c (f p) m", c=self.num_channels, p=self.per_frame
        )
        return split @ self.spread.T


class PrincipalEncoder(_Bands):
    """Log magnitudes to latents; fixed once fitted."""

    weight: Tensor
    bias: Tensor

    def __init__(self, config: CodecConfig) -> None:
        super().__init__(config)
        self.register_buffer("weight", torch.randn(self.num_components, self.size) / self.size)
        self.register_buffer("bias", torch.zeros(self.num_components))

    def forward(self, logs: Float[Tensor, "batch channels seq bins"]) -> Tensor:
        """Components, then pitch, `batch frames latent_dim`; float32 under autocast too."""
        with torch.autocast(logs.device.type, enabled=False):
            components = nn.functional.linear(self.collect(logs), self.weight, self.bias)
            pitch = self.harmonics.find(logs.mean(dim=1))
            return torch.cat([components, to_latents(pitch)], dim=-1)

    @torch.no_grad()
    def fit(self, logs: list[Float[Tensor, "batch channels seq bins"]]) -> Components:
        """Components of the given log magnitudes, which become those of this encoder."""
        rows = torch.cat([self.collect(part).flatten(0, 1) for part in logs]).double()
        mean = rows.mean(dim=0)
        centred = rows - mean
        variance, vectors = torch.linalg.eigh(centred.T @ centred / len(rows))
        count = len(self.bias)
        basis = vectors[:, -count:].flip(1)
        # The sign of an eigenvector is arbitrary: fixed, so that every worker finds the same.
        basis = basis * basis.gather(0, basis.abs().argmax(dim=0, keepdim=True)).sign()
        deviation = variance[-count:].flip(0).clamp(min=0).sqrt().clamp(min=_LEAST_DEVIATION)
        self.weight.copy_((basis / deviation).T)
        self.bias.copy_(-(mean @ basis) / deviation)
        gain, offset = self._fit_combs(logs, mean.float(), basis.float())
        return Components(mean, basis, deviation, offset, gain)

    def _fit_combs(
        self, logs: list[Tensor], mean: Tensor, basis: Tensor
    ) -> tuple[Float[Tensor, "channels bins"], Float[Tensor, "channels bins"]]:
        """Gain of the comb in each bin by least squares, and the mean of what is left."""
        rests, combs = [], []
        for part in logs:
            bands = (self.collect(part) - mean) @ basis @ basis.T + mean
            rests.append((part - self.expand(bands)).transpose(0, 1).flatten(1, 2))
            combs.append(self.harmonics.draw(self.harmonics.find(part.mean(dim=1))).flatten(0, 1))
        rest, comb = torch.cat(rests, dim=1), torch.cat(combs)
        centred = comb - comb.mean(dim=0)
        power = centred.square().mean(dim=0).clamp(min=1e-6)
        gain = (centred * rest).mean(dim=1) / power
        return gain, rest.mean(dim=1) - gain * comb.mean(dim=0)


class PrincipalDecoder(_Bands):
    """Latents to log magnitudes; fixed once fitted."""

    weight: Tensor
    bias: Tensor
    offset: Tensor
    gain: Tensor

    def __init__(self, config: CodecConfig) -> None:
        super().__init__(config)
        num_bins = config.head_window // 2 + 1
        first = torch.randn(self.size, self.num_components) / self.num_components**0.5
        self.register_buffer("weight", first / 2)
        self.register_buffer("bias", torch.zeros(self.size))
        self.register_buffer("offset", torch.zeros(config.num_channels, num_bins))
        self.register_buffer("gain", torch.zeros(config.num_channels, num_bins))

    def forward(
        self, latents: Float[Tensor, "batch frames latent_dim"]
    ) -> tuple[Float[Tensor, "batch channels seq bins"], Float[Tensor, "batch seq bins"]]:
        """Log magnitudes, and the comb of partials in them; float32 under autocast too."""
        components = latents[..., : self.num_components].float()
        with torch.autocast(latents.device.type, enabled=False):
            bands = nn.functional.linear(components, self.weight, self.bias)
            comb = self.harmonics.draw(self.pitch(latents.float()))
            logs = self.expand(bands) + self.offset[:, None]
            return logs + self.gain[:, None] * comb[:, None], comb

    def pitch(self, latents: Float[Tensor, "batch frames latent_dim"]) -> Pitch:
        """The pitch that latents carry, of their dtype."""
        return from_latents(latents[..., self.num_components :])

    @torch.no_grad()
    def fit(self, components: Components) -> None:
        """Take over the components of the encoder."""
        self.weight.copy_(components.basis * components.deviation)
        self.bias.copy_(components.mean)
        self.offset.copy_(components.offset)
        self.gain.copy_(components.gain)


def _spread(pool: Float[Tensor, "bands bins"], config: CodecConfig) -> Float[Tensor, "bins bands"]:
    """Share of each band in a bin; a bin that no band covers takes the nearest band."""
    centre = mel_frequencies(len(pool) + 2, config.sample_rate)[1:-1]
    frequency = torch.linspace(0, config.sample_rate / 2, pool.shape[1], dtype=torch.float64)
    nearest = (frequency[:, None] - centre).abs().argmin(dim=1)
    covered = pool.sum(dim=0) > 0
    alone = nn.functional.one_hot(nearest, len(pool)).float()
    return torch.where(covered[:, None], pool.T / pool.sum(dim=0)[:, None].clamp(min=1e-9), alone)
