"""Encoder: strided residual convolutions, windowed self-attention, one [CLS] vector per patch."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from model.codec.segments import Reach
from model.codec.spectrum import log_magnitudes
from model.codec.tiny.principal import Components, PrincipalEncoder
from model.codec.vae.codec_config import CodecConfig
from model.codec.vae.codec_layers import (
    CenteredConv,
    CenteredTransformerLayer,
    CenteredUnit,
    ChannelNorm,
)

_KERNEL = 3
_LOG_SCALE, _LOG_CENTRE = 0.4, -6.0
"""Between digital silence and full scale scaled log magnitudes run from -2 to about 2."""
_FIRST_LOG_STD = -2.5
"""Posteriors start narrow: latents that are mostly noise are ignored by the decoder for long."""
_FIRST_ERROR = 0.2
"""The same for principal components: standard deviation of the noise along each, nats."""
_LARGEST_FIRST_ERROR = 0.4
_FIRST_PITCH_ERRORS = (0.02, 0.1, 0.15)
"""The same for the latents of pitch, in their own units: the first is a hundredth of an octave."""
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
    """Log magnitudes of a short-time Fourier transform, and a map of them that is trained.

    A departure from the paper's plain convolution, for codecs trained in minutes. Powers alone are
    seen: a codec this small could not keep phases anyway.
    """

    window: Tensor

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.hop_length = config.stem_stride
        num_bins = config.num_channels * (config.stem_kernel // 2 + 1)
        self.project = nn.Conv1d(num_bins, config.channels[0], 1)
        self.register_buffer("window", torch.hann_window(config.stem_kernel), persistent=False)

    def log_magnitudes(
        self, waveform: Float[Tensor, "batch channels samples"]
    ) -> Float[Tensor, "batch channels seq bins"]:
        """Input features of a waveform; float32 under autocast too."""
        with torch.autocast(waveform.device.type, enabled=False):
            return log_magnitudes(waveform, self.window, self.hop_length)

    def forward(self, logs: Float[Tensor, "batch channels seq bins"]) -> Tensor:
        """Features `batch hidden seq` of log magnitudes."""
        scaled = _LOG_SCALE * (logs - _LOG_CENTRE)
        return self.project(
            rearrange(scaled, "batch channels seq bins -> batch (channels bins) seq")
        )


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
        self.principal = PrincipalEncoder(config) if config.principal_bands else None

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
        linear = None
        if isinstance(self.stem, SpectralStem):
            logs = self.stem.log_magnitudes(waveform)
            features = self.stem(logs)
            linear = None if self.principal is None else self.principal(logs)
        else:
            features = self.stem(waveform)
        features = silence_after(features, lengths)
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
        if linear is not None:
            mean = mean + linear
        return mean, log_std.clamp(*LOG_STD_RANGE)

    @torch.no_grad()
    def start_linear(self, waveforms: list[Float[Tensor, "batch channels samples"]]) -> Components:
        """Initialise as the principal components of waveforms, with nothing added by the network.

        The configuration has `principal_bands`.
        """
        assert self.principal is not None
        assert isinstance(self.stem, SpectralStem)
        logs = [self.stem.log_magnitudes(waveform) for waveform in waveforms]
        components = self.principal.fit(logs)
        mean_weight, _ = self.posterior.weight.chunk(2)
        mean_bias, std_bias = self.posterior.bias.chunk(2)
        mean_weight.zero_()
        mean_bias.zero_()
        errors = (_FIRST_ERROR / components.deviation).clamp(max=_LARGEST_FIRST_ERROR)
        std_bias.copy_(torch.cat([errors, errors.new_tensor(_FIRST_PITCH_ERRORS)]).log())
        return components

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


def _layer(config: CodecConfig) -> CenteredTransformerLayer:
    return CenteredTransformerLayer(
        config.hidden_dim, config.num_heads, config.ffn_dim, config.window
    )
