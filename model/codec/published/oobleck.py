"""Adapter of the Stable Audio VAE, `AutoencoderOobleck` of diffusers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from einops import rearrange
from torch import Tensor, nn

from model.codec.published.windowed import WindowedCodec, build_network, plain_config
from model.codec.segments import Reach
from model.timebase import Timebase

_UNITS = 3 * (1 + 3 + 9)
"""Steps to either side that the three dilated units of a stage see."""


class OobleckCodec(WindowedCodec):
    """Neighbouring frames of the network stand side by side in one wider latent frame.

    Two frames of the published 64 values at 21.53 Hz give 128 values at 10.77 Hz, the paper's rate.

    Args:
        network_config: Arguments of `AutoencoderOobleck`; strides must be even.
        frames_stacked: Frames of the network in a latent frame.
        seed: Seed of the initial weights.

    Raises:
        ValueError: If the extra `codecs` is missing or a value is out of range.

    Source:
        Stable Audio Open, arXiv:2407.14358, section 3.
    """

    name = "oobleck"

    def __init__(
        self, network_config: dict[str, Any], frames_stacked: int = 2, seed: int = 0
    ) -> None:
        def build() -> nn.Module:
            """The untrained network; imported here because `diffusers` is an extra."""
            from diffusers import AutoencoderOobleck

            built: nn.Module = AutoencoderOobleck(**network_config)
            return built

        if frames_stacked < 1:
            raise ValueError(f"frames_stacked is {frames_stacked}; it must be at least 1")
        network = build_network(self.name, "diffusers", build, seed)
        config = plain_config(network)
        strides = config["downsampling_ratios"]
        if any(stride % 2 for stride in strides):
            raise ValueError(f"strides {strides} must be even: odd ones lose a sample a frame")
        if config["encoder_hidden_size"] != 2 * config["decoder_input_channels"]:
            raise ValueError(
                f"encoder_hidden_size {config['encoder_hidden_size']} must be twice "
                f"decoder_input_channels {config['decoder_input_channels']}: mean and scale"
            )
        super().__init__(
            network,
            Timebase(config["sampling_rate"], math.prod(strides) * frames_stacked),
            config["audio_channels"],
            config["decoder_input_channels"] * frames_stacked,
            _encoder_reach(strides, frames_stacked),
            _decoder_reach(strides, frames_stacked),
        )
        self.frames_stacked = frames_stacked

    @classmethod
    def from_config(cls, values: dict[str, Any], seed: int = 0) -> OobleckCodec:
        """An untrained codec from the values of `config_dict`, without the name."""
        return cls(values["network"], values["frames_stacked"], seed)

    def config_dict(self) -> dict[str, Any]:
        """Plain values from which the registry builds the same architecture again."""
        return {
            "name": self.name,
            "frames_stacked": self.frames_stacked,
            "network": plain_config(self.network),
        }

    def _posterior(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        posterior = self.network.encode(waveform).latent_dist
        return self._stacked(posterior.mean), self._stacked(posterior.std.log())

    def _stacked(self, frames: Tensor) -> Tensor:
        return rearrange(frames, "b d (f p) -> b f (p d)", p=self.frames_stacked)

    def _waveform(self, latents: Tensor) -> Tensor:
        frames = rearrange(latents, "b f (p d) -> b d (f p)", p=self.frames_stacked)
        waveform: Tensor = self.network.decode(frames).sample
        return waveform


def _encoder_reach(strides: Sequence[int], frames_stacked: int) -> Reach:
    """From the steps of one latent frame back to the first and last sample they see."""
    low, high = -1, frames_stacked - 1 + 1
    for stride in reversed(strides):
        padding = stride // 2
        low = low * stride - padding - _UNITS
        high = high * stride - padding + 2 * stride - 1 + _UNITS
    low, high = low - 3, high + 3
    hop_length = math.prod(strides) * frames_stacked
    return Reach(before=-(low // hop_length), after=-(-(high - hop_length + 1) // hop_length))


def _decoder_reach(strides: Sequence[int], frames_stacked: int) -> Reach:
    """From the samples of one latent frame back to the first and last step they come from."""
    low, high = -3, math.prod(strides) * frames_stacked - 1 + 3
    for stride in strides:
        padding = stride // 2
        low = -(-(low - _UNITS + padding - (2 * stride - 1)) // stride)
        high = (high + _UNITS + padding) // stride
    low, high = low - 3, high + 3
    return Reach(before=-(low // frames_stacked), after=high // frames_stacked)
