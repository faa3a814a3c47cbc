"""Adapter of the Stable Audio 3 autoencoder, `AutoencoderSAME` of diffusers."""

from __future__ import annotations

import math
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from model.codec.published.windowed import WindowedCodec, build_network, plain_config
from model.codec.segments import Reach
from model.codec.vae.encoder import LOG_STD_RANGE
from model.timebase import Timebase


class SameCodec(WindowedCodec):
    """Transformers within sliding windows: 256 values at 10.77 Hz, 44.1 kHz stereo.

    Its latents are points, not Gaussians: the posterior has the smallest deviation there is.

    Args:
        network_config: Arguments of `AutoencoderSAME`.
        seed: Seed of the initial weights.

    Raises:
        ValueError: If the extra `codecs` is missing or a value is out of range.

    Source:
        Stable Audio 3, arXiv:2605.17991.
    """

    name = "same"

    def __init__(self, network_config: dict[str, Any], seed: int = 0) -> None:
        def build() -> nn.Module:
            """The untrained network; imported here because `diffusers` is an extra."""
            from diffusers import AutoencoderSAME

            built: nn.Module = AutoencoderSAME(**network_config)
            return built

        network = build_network(self.name, "diffusers", build, seed)
        config = plain_config(network)
        strides = config["encoder_strides"]
        reach = 0
        for level, depth in enumerate(config["encoder_transformer_depths"]):
            # A layer sees `sliding_window` steps of its level's slower side to either side.
            steps = math.prod(strides[level + 1 :])
            reach += -(-depth * config["sliding_window"] // steps)
        super().__init__(
            network,
            Timebase(config["sampling_rate"], config["patch_size"] * math.prod(strides)),
            config["audio_channels"],
            config["latent_dim"],
            Reach(before=reach, after=reach),
            Reach(before=reach, after=reach),
        )

    @classmethod
    def from_config(cls, values: dict[str, Any], seed: int = 0) -> SameCodec:
        """An untrained codec from the values of `config_dict`, without the name."""
        return cls(values["network"], seed)

    def config_dict(self) -> dict[str, Any]:
        """Plain values from which the registry builds the same architecture again."""
        return {"name": self.name, "network": plain_config(self.network)}

    def _posterior(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        mean = rearrange(self.network.encode(waveform).latents, "b d f -> b f d")
        return mean, torch.full_like(mean, LOG_STD_RANGE[0])

    def _waveform(self, latents: Tensor) -> Tensor:
        waveform: Tensor = self.network.decode(rearrange(latents, "b f d -> b d f")).sample
        return waveform
