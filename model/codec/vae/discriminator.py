"""Discriminators of codec training: complex spectra at several resolutions, and periods.

Each judges a waveform in patches and shows its inner features, which the codec is trained to match.
They are used in training only and never shipped.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from model.codec.vae.losses import stft, views

_SLOPE = 0.2
Judgement = tuple[Tensor, list[Tensor]]
"""Scores of the patches of a waveform, and the features of every layer before them."""


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """Shapes of the discriminators."""

    window_lengths: tuple[int, ...] = (2048, 1024, 512, 256, 128)
    """Windows of the spectra, samples, one discriminator each; the hop is a quarter."""
    spectral_channels: int = 64
    """Width of the convolutions over spectra."""
    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    """Periods in samples, one discriminator each."""
    period_channels: int = 32
    """First width of the convolutions over periods; later ones are 4, 16 and 32 times as wide."""

    def __post_init__(self) -> None:
        if not (*self.window_lengths, *self.periods):
            raise ValueError("no discriminators: give window_lengths or periods")
        if any(length < 16 or length % 4 for length in self.window_lengths):
            raise ValueError(
                f"window_lengths {self.window_lengths}: each must be >= 16 and a multiple of 4"
            )
        if any(period < 2 for period in self.periods):
            raise ValueError(f"periods {self.periods}: each must be at least 2 samples")
        for name in ("spectral_channels", "period_channels"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be positive")


DISCRIMINATOR_PRESETS: dict[str, DiscriminatorConfig] = {
    "tiny": DiscriminatorConfig(
        window_lengths=(1024, 512, 256), spectral_channels=8, periods=(2, 3, 5), period_channels=4
    ),
    "small": DiscriminatorConfig(
        window_lengths=(1024, 512, 256, 128), spectral_channels=32, period_channels=16
    ),
    "paper": DiscriminatorConfig(),
}
"""By codec preset; tiny's are narrow and few, because a step on a CPU has to pay for them."""


def discriminator_config(preset: str, changes: dict[str, Any]) -> DiscriminatorConfig:
    """Shapes of a codec preset with some fields changed.

    Raises:
        ValueError: On an unknown preset or field, or a value out of range.
    """
    if preset not in DISCRIMINATOR_PRESETS:
        raise ValueError(
            f"no discriminator preset {preset!r}; there are {', '.join(DISCRIMINATOR_PRESETS)}"
        )
    known = {item.name for item in dataclasses.fields(DiscriminatorConfig)}
    if unknown := sorted(set(changes) - known):
        raise ValueError(f"unknown setting {', '.join(unknown)}; known: {sorted(known)}")
    plain: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()
    }
    return dataclasses.replace(DISCRIMINATOR_PRESETS[preset], **plain)


class Discriminators(nn.Module):
    """All discriminators as one module.

    Args:
        config: Shapes.
        num_channels: Waveform channels, 1 or 2.
        seed: Seed of the initial weights.
    """

    def __init__(self, config: DiscriminatorConfig, num_channels: int, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.members = nn.ModuleList(
                [
                    *(
                        SpectrogramDiscriminator(length, num_channels, config.spectral_channels)
                        for length in config.window_lengths
                    ),
                    *(
                        PeriodDiscriminator(period, config.period_channels)
                        for period in config.periods
                    ),
                ]
            )

    def forward(self, waveform: Float[Tensor, "batch channels samples"]) -> list[Judgement]:
        """Outputs of each discriminator for the waveforms."""
        return [member(waveform) for member in self.members]


class SpectrogramDiscriminator(nn.Module):
    """Convolutions over the complex spectrum of all channels; sees magnitude, phase and image.

    Source:
        EnCodec, arXiv:2210.13438, section 3.4 and figure 2.
    """

    def __init__(self, window_length: int, num_channels: int, width: int) -> None:
        super().__init__()
        self.window_length = window_length
        layers = [_conv2d(2 * num_channels, width, (3, 9))]
        layers += [
            _conv2d(width, width, (3, 9), stride=(1, 2), dilation=(dilation, 1))
            for dilation in (1, 2, 4)
        ]
        layers.append(_conv2d(width, width, (3, 3)))
        self.layers = nn.ModuleList(layers)
        self.score = _conv2d(width, 1, (3, 3))

    def forward(self, waveform: Float[Tensor, "batch channels samples"]) -> Judgement:
        """Scores `batch 1 seq bins` and features; the transform runs in float32."""
        with torch.autocast(waveform.device.type, enabled=False):
            flat = rearrange(waveform.float(), "batch channels samples -> (batch channels) samples")
            parts = torch.view_as_real(stft(flat, self.window_length))
        features = rearrange(
            parts, "(b c) bins seq part -> b (c part) seq bins", c=waveform.shape[1]
        )
        return _judge(features, self.layers, self.score)


class PeriodDiscriminator(nn.Module):
    """Convolutions along every `period`-th sample, of mono or of mid and side apart.

    Source:
        HiFi-GAN, arXiv:2010.05646, section 2.3.
    """

    def __init__(self, period: int, width: int) -> None:
        super().__init__()
        self.period = period
        widths = (1, width, 4 * width, 16 * width, 32 * width)
        layers = [
            _conv2d(before, after, (5, 1), stride=(3, 1))
            for before, after in itertools.pairwise(widths)
        ]
        layers.append(_conv2d(widths[-1], widths[-1], (5, 1)))
        self.layers = nn.ModuleList(layers)
        self.score = _conv2d(widths[-1], 1, (3, 1))

    def forward(self, waveform: Float[Tensor, "batch channels samples"]) -> Judgement:
        """Scores `views 1 seq period` and features, mid and side as rows of the batch."""
        rows = torch.cat(views(waveform)[: waveform.shape[1]])
        rows = F.pad(rows, (0, -rows.shape[-1] % self.period))
        folded = rearrange(rows, "b (seq period) -> b 1 seq period", period=self.period)
        return _judge(folded, self.layers, self.score)


def _judge(features: Tensor, layers: nn.ModuleList, score: nn.Module) -> Judgement:
    seen = []
    for layer in layers:
        features = F.leaky_relu(layer(features), _SLOPE)
        seen.append(features)
    return score(features), seen


def _conv2d(
    in_channels: int,
    out_channels: int,
    kernel: tuple[int, int],
    *,
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
) -> nn.Module:
    padding = tuple((size - 1) * apart // 2 for size, apart in zip(kernel, dilation, strict=True))
    return weight_norm(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding, dilation)  # type: ignore[arg-type]  # a pair
    )
