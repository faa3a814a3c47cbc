"""Shape of the codec as one frozen value, and the presets from a laptop to the paper."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from model.codec.tiny.pitch import NUM_PITCH_LATENTS
from model.config import require_positive
from model.timebase import Timebase


@dataclass(frozen=True, kw_only=True)
class CodecConfig:
    """Everything that fixes the shapes of the variational codec."""

    sample_rate: int
    """Waveform rate, Hz."""
    num_channels: int
    """Waveform channels, 1 or 2."""
    stem: Literal["convolution", "spectrum"] = "convolution"
    """First layer: a plain convolution, or log magnitudes of a short-time Fourier transform, with
    which a small model need not learn spectral analysis first."""
    stem_stride: int = 1
    """Stride of the first layer; above 1 keeps small models away from the sample rate."""
    stem_kernel: int = 7
    """Samples the first layer sees; at least `stem_stride`."""
    principal_bands: int | None = None
    """Mel bands of a linear autoencoder beside the network, with which training begins: the
    principal components of the corpus, and the pitch in the last three latents. None is none. Needs
    the stem `spectrum` at the head's hop and window."""
    strides: tuple[int, ...]
    """Stride of each encoder stage, finest first."""
    channels: tuple[int, ...]
    """Width after the first convolution and after each stage."""
    dilations: tuple[int, ...] = (1, 3, 9)
    """Dilation of each residual unit of a stage."""
    hidden_dim: int
    """Width of the attention layers of both sides."""
    num_heads: int
    """Attention heads; divides `hidden_dim` into even parts."""
    ffn_dim: int
    """Inner width of the SwiGLU feed-forward."""
    encoder_layers: int
    """Self-attention layers of the encoder."""
    aggregator_layers: int
    """Attention layers that collect one patch into its [CLS] vector."""
    decoder_layers: int
    """Causal self-attention layers of the decoder."""
    window: int = 32
    """How far attention looks: steps either side in the encoder, steps back in the decoder."""
    patch_frames: int = 4
    """Convolution steps that one latent frame covers."""
    latent_dim: int
    """Width of one latent frame."""
    decoder_units: int
    """Residual convolutions of the decoder at the rate of the attention layers."""
    head_channels: int
    """Width of the residual convolutions at the rate of the spectral head."""
    head_units: int
    """Residual convolutions at the rate of the spectral head."""
    head_hop: int
    """Samples between inverse-STFT frames; divides the stride of the convolutions."""
    head_window: int
    """Samples of one inverse-STFT frame: four hops overlap well."""
    head_phase: Literal["predicted", "propagated"] = "predicted"
    """Phase of a bin: predicted relative to a steady tone at the bin's frequency, or following from
    the magnitudes, from frame to frame, with nothing to learn."""

    def __post_init__(self) -> None:
        require_positive(self)
        if self.stem not in ("convolution", "spectrum"):
            raise ValueError(f"stem {self.stem!r}; use convolution or spectrum")
        if self.head_phase not in ("predicted", "propagated"):
            raise ValueError(f"head_phase {self.head_phase!r}; use predicted or propagated")
        if self.num_channels > 2:
            raise ValueError(f"num_channels is {self.num_channels}; 1 and 2 are supported")
        if len(self.channels) != len(self.strides) + 1:
            raise ValueError(
                f"{len(self.channels)} channels for {len(self.strides)} strides; "
                "give one width for the first convolution and one per stage"
            )
        if not self.strides or min(*self.strides, *self.channels, *self.dilations) <= 0:
            raise ValueError(
                f"strides {self.strides}, channels {self.channels} and dilations {self.dilations} "
                "must be positive and not empty"
            )
        if self.stem_kernel < self.stem_stride:
            raise ValueError(
                f"stem_kernel {self.stem_kernel} is below stem_stride {self.stem_stride}: "
                "samples would be skipped"
            )
        if self.hidden_dim % (2 * self.num_heads):
            raise ValueError(
                f"hidden_dim {self.hidden_dim} does not split into {self.num_heads} even heads"
            )
        if self.conv_hop % self.head_hop:
            raise ValueError(
                f"head_hop {self.head_hop} does not divide the convolutions' {self.conv_hop}"
            )
        if self.head_window < 2 * self.head_hop or (self.head_window - self.head_hop) % 2:
            raise ValueError(
                f"head_window {self.head_window} must be at least twice head_hop {self.head_hop} "
                "and differ from it by an even number"
            )

        stem = (self.stem, self.stem_stride, self.stem_kernel)
        if self.principal_bands and stem != ("spectrum", self.head_hop, self.head_window):
            raise ValueError(
                f"principal_bands need the stem to analyse what the head gives: spectrum, stride "
                f"{self.head_hop}, kernel {self.head_window}; the stem is {stem}"
            )
        if self.principal_bands and self.latent_dim <= NUM_PITCH_LATENTS:
            raise ValueError(
                f"latent_dim is {self.latent_dim}; principal_bands need more than the "
                f"{NUM_PITCH_LATENTS} latents of pitch"
            )

    @property
    def conv_hop(self) -> int:
        """Samples per step of the attention layers."""
        return self.stem_stride * math.prod(self.strides)

    @property
    def timebase(self) -> Timebase:
        """Sample rate and samples per latent frame."""
        return Timebase(self.sample_rate, self.conv_hop * self.patch_frames)

    @property
    def head_upsample(self) -> int:
        """Spectral frames per step of the attention layers."""
        return self.conv_hop // self.head_hop


def codec_config_from_dict(values: dict[str, Any]) -> CodecConfig:
    """A configuration from plain JSON values.

    Raises:
        ValueError: On an unknown or missing key, or a value out of range.
    """
    known = {item.name for item in dataclasses.fields(CodecConfig)}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"unknown codec setting {', '.join(unknown)}; known: {sorted(known)}")
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    try:
        return CodecConfig(**{**values, **lists})
    except TypeError as error:
        raise ValueError(f"not a codec configuration: {error}") from error


CODEC_PRESETS: dict[str, CodecConfig] = {
    "tiny": CodecConfig(
        sample_rate=16_000,
        num_channels=1,
        stem="spectrum",
        stem_stride=160,
        stem_kernel=640,
        principal_bands=120,
        strides=(2,),
        channels=(256, 256),
        dilations=(1, 3),
        hidden_dim=256,
        num_heads=4,
        ffn_dim=512,
        encoder_layers=1,
        aggregator_layers=1,
        decoder_layers=2,
        window=32,
        patch_frames=2,
        latent_dim=64,
        decoder_units=1,
        head_channels=256,
        head_units=3,
        head_hop=160,
        head_window=640,
        head_phase="propagated",
    ),
    "small": CodecConfig(
        sample_rate=24_000,
        num_channels=1,
        stem_stride=2,
        strides=(5, 6, 8),
        channels=(48, 96, 192, 384),
        hidden_dim=384,
        num_heads=6,
        ffn_dim=1024,
        encoder_layers=3,
        aggregator_layers=2,
        decoder_layers=4,
        window=32,
        latent_dim=64,
        decoder_units=4,
        head_channels=320,
        head_units=4,
        head_hop=240,
        head_window=960,
    ),
    "paper": CodecConfig(
        sample_rate=44_100,
        num_channels=2,
        strides=(2, 4, 4, 4, 8),
        channels=(64, 128, 256, 512, 768, 1024),
        hidden_dim=768,
        num_heads=12,
        ffn_dim=2048,
        encoder_layers=8,
        aggregator_layers=4,
        decoder_layers=8,
        window=32,
        latent_dim=128,
        decoder_units=3,
        head_channels=768,
        head_units=6,
        head_hop=512,
        head_window=2048,
    ),
}
"""25 Hz at 16 kHz for a laptop; 12.5 Hz at 24 kHz; the paper's 10.77 Hz at 44.1 kHz stereo."""
