"""Encoder: strided residual convolutions, windowed self-attention, one [CLS] vector per patch."""

from __future__ import annotations

from typing import cast

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from model.codec.config import CodecConfig
from model.codec.layers import CenteredConv, CenteredUnit, ChannelNorm, EncoderLayer
from model.codec.mel import mel_frequencies
from model.codec.segments import Reach

_KERNEL = 3
_FLOOR = 1e-3
_LOG_SCALE, _LOG_CENTRE = 0.45, 3.0
_FIRST_LOG_STD = -2.5
"""Posteriors begin narrow: latents that are mostly noise are ignored by the decoder for long."""
LOG_STD_RANGE = (-8.0, 2.0)
"""Bounds of the posterior's log standard deviation; keeps its exponential finite."""


class Stage(nn.Module):
    """Residual units at one rate, then a strided convolution to the next."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, dilations: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.units = nn.ModuleList(CenteredUnit(in_channels, _KERNEL, d) for d in dilations)
        self.norm = ChannelNorm(in_channels)
        self.down = CenteredConv(in_channels, out_channels, 2 * stride, stride=stride)
        self.stride = stride

    def forward(
        self, features: Float[Tensor, "batch hidden seq"], lengths: Int[Tensor, " batch"] | None
    ) -> tuple[Tensor, Tensor | None]:
        """Features at the lower rate, and the valid lengths there."""
        for unit in self.units:
            features = silence_after(unit(features), lengths)
        features = self.down(nn.functional.silu(self.norm(features)))
        lengths = None if lengths is None else lengths // self.stride
        return silence_after(features, lengths), lengths


class SpectralStem(nn.Module):
    """Log powers of a bank of mel-spaced filters, which is not trained.

    Each filter is a pair in quadrature, so that its power does not depend on phase. Log powers are
    centred: between silence and full scale they run from -3 to about 3. The logarithm of quiet
    bands gives filters a gradient ten times that of everything else: trained, they turn to noise
    within hundreds of steps, and latents carry loudness alone. A departure from the paper's plain
    convolution, for codecs trained in minutes.
    """

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        if config.channels[0] % config.num_channels:
            raise ValueError(
                f"{config.channels[0]} spectral filters do not divide among "
                f"{config.num_channels} channels"
            )
        self.filters = CenteredConv(
            config.num_channels,
            2 * config.channels[0],
            config.stem_kernel,
            stride=config.stem_stride,
        )
        with torch.no_grad():
            self.filters.conv.weight.copy_(_quadrature_bank(config))
            nn.init.zeros_(cast("Tensor", self.filters.conv.bias))
        self.requires_grad_(False)

    def forward(self, waveform: Float[Tensor, "batch channels samples"]) -> Tensor:
        """Features `batch hidden seq` at the rate of the stem; float32 under autocast too."""
        with torch.autocast(waveform.device.type, enabled=False):
            real, imaginary = self.filters(waveform.float()).chunk(2, dim=1)
            power = real.square() + imaginary.square()
            return _LOG_SCALE * torch.log1p(power / _FLOOR**2) - _LOG_CENTRE


class Encoder(nn.Module):
    """Waveform to posterior parameters, one vector per latent frame; sees both directions."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        width = config.channels
        self.stem = (
            SpectralStem(config)
            if config.stem == "spectrum"
            else CenteredConv(
                config.num_channels, width[0], config.stem_kernel, stride=config.stem_stride
            )
        )
        self.stages = nn.ModuleList(
            Stage(before, after, stride, config.dilations)
            for before, after, stride in zip(width, width[1:], config.strides, strict=False)
        )
        self.project = nn.Linear(width[-1], config.hidden_dim)
        self.layers = nn.ModuleList(_layer(config) for _ in range(config.encoder_layers))
        self.cls = nn.Linear(config.patch_frames * config.hidden_dim, config.hidden_dim)
        self.aggregator = nn.ModuleList(_layer(config) for _ in range(config.aggregator_layers))
        self.norm = nn.RMSNorm(config.hidden_dim, eps=1e-6)
        self.posterior = nn.Linear(config.hidden_dim, 2 * config.latent_dim)
        nn.init.constant_(self.posterior.bias[config.latent_dim :], _FIRST_LOG_STD)

    def forward(
        self,
        waveform: Float[Tensor, "batch channels samples"],
        num_frames: Int[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch frames latent_dim"], Float[Tensor, "batch frames latent_dim"]]:
        """Mean and log standard deviation.

        The [CLS] vector of a patch begins as a projection of its steps: from a constant it would
        first see only their average, and learn late what changes within a patch.

        Args:
            waveform: Whole frames of samples; zero after the last valid sample of a row.
            num_frames: Valid frames of each row; None is all of them.
        """
        config = self.config
        per_frame = config.timebase.hop_length // config.stem_stride
        lengths = None if num_frames is None else num_frames * per_frame
        features = silence_after(self.stem(waveform), lengths)
        for stage in self.stages:
            features, lengths = stage(features, lengths)
        steps = self.project(rearrange(features, "batch hidden seq -> batch seq hidden")).float()
        valid = None
        if lengths is not None:
            valid = torch.arange(steps.shape[1], device=steps.device) < lengths[:, None]
        for layer in self.layers:
            steps = layer(steps, valid)
        posterior = self.posterior(self.norm(self._aggregate(steps))).float()
        mean, log_std = posterior.chunk(2, dim=-1)
        return mean, log_std.clamp(*LOG_STD_RANGE)

    def _aggregate(
        self, steps: Float[Tensor, "batch seq hidden"]
    ) -> Float[Tensor, "batch frames hidden"]:
        batch = steps.shape[0]
        patches = rearrange(steps, "b (f p) d -> (b f) p d", p=self.config.patch_frames)
        cls = self.cls(rearrange(patches, "b p d -> b 1 (p d)")).float()
        tokens = torch.cat([patches, cls], dim=1)
        for layer in self.aggregator:
            tokens = layer(tokens)
        return rearrange(tokens[:, -1], "(b f) d -> b f d", b=batch)


def encoder_reach(config: CodecConfig) -> Reach:
    """Frames before and after a frame that its posterior may depend on; a bound, not the least."""
    samples, step = config.stem_kernel, config.stem_stride
    for stride in config.strides:
        samples += step * (sum(config.dilations) * (_KERNEL - 1) // 2 + 2 * stride)
        step *= stride
    samples += step * config.encoder_layers * config.window
    frames = config.timebase.num_frames(samples)
    return Reach(before=frames, after=frames)


def silence_after(
    features: Float[Tensor, "batch hidden seq"], lengths: Int[Tensor, " batch"] | None
) -> Float[Tensor, "batch hidden seq"]:
    """Zero the steps behind each row's length; None leaves all as they are."""
    if lengths is None:
        return features
    beyond = torch.arange(features.shape[-1], device=features.device) >= lengths[:, None]
    return features.masked_fill(beyond[:, None], 0.0)


def _quadrature_bank(config: CodecConfig) -> Float[Tensor, "filters channels samples"]:
    """Cosines, then sines, under a Hann window of unit energy; each channel has its own."""
    per_channel = config.channels[0] // config.num_channels
    centre = mel_frequencies(per_channel + 2, config.sample_rate)[1:-1, None]
    time_s = (torch.arange(config.stem_kernel) - (config.stem_kernel - 1) / 2) / config.sample_rate
    window = torch.hann_window(config.stem_kernel, periodic=False)
    window = window / window.square().sum().sqrt()
    angle = 2 * torch.pi * centre * time_s
    pair = torch.stack([angle.cos(), angle.sin()]).float() * window
    own = torch.eye(config.num_channels)
    return rearrange(
        pair[:, None, :, None] * own[None, :, None, :, None], "q c f i k -> (q c f) i k"
    )


def _layer(config: CodecConfig) -> EncoderLayer:
    return EncoderLayer(config.hidden_dim, config.num_heads, config.ffn_dim, config.window)
