"""Adapter of the VibeVoice acoustic tokenizer of transformers: continuous, causal, 7.5 Hz."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from model.codec.protocol import check_rows
from model.codec.published.windowed import WindowedCodec, build_network
from model.codec.segments import Reach
from model.timebase import Timebase

_NETWORK_KEYS = (
    "channels",
    "hidden_size",
    "kernel_size",
    "rms_norm_eps",
    "layer_scale_init_value",
    "initializer_range",
    "num_filters",
    "downsampling_ratios",
    "depths",
    "hidden_act",
    "ffn_expansion",
    "vae_std",
)
"""What of the library's configuration fixes the network; the rest concerns the library alone."""


@dataclasses.dataclass
class _Past:
    """Ends of what the causal convolutions saw, by layer; takes the place of the library's cache,
    which holds one batch and cannot be taken apart into requests. A layer's is
    `batch channels seq`."""

    layers: dict[str, Tensor]

    def update(self, features: Tensor, cache_key: str, conv_module: nn.Module) -> Tensor:
        """Features behind their past, which becomes the end of both."""
        del conv_module
        past = self.layers[cache_key]
        joined = torch.cat([past, features], dim=-1)
        self.layers[cache_key] = joined[..., joined.shape[-1] - past.shape[-1] :]
        return joined


class VibeVoiceCodec(WindowedCodec):
    """Causal on both sides, so a stream has no delay; the state is the past of its convolutions.

    Chosen among the models of transformers because its latents are Gaussian by design, a
    variational autoencoder of fixed deviation, and no quantiser has to be cut out. The library
    draws a deviation for each clip from a normal of deviation `vae_std`; here every frame has
    `vae_std`, which is noise of the same power. Its feature extractor levels speech to -25 dBFS;
    the adapter does not, since levels have to survive.

    Args:
        network_config: Arguments of `VibeVoiceAcousticTokenizerConfig`.
        sample_rate: Rate it was trained at, Hz; the network's configuration does not say.
        seed: Seed of the initial weights.

    Raises:
        ValueError: If the extra `codecs` is missing or a value is out of range.

    Source:
        VibeVoice, arXiv:2508.19205, section 2.1.
    """

    name = "vibevoice"

    def __init__(
        self, network_config: dict[str, Any], sample_rate: int = 24_000, seed: int = 0
    ) -> None:
        def build() -> nn.Module:
            """The untrained network; imported here because `transformers` is an extra."""
            from transformers import (
                VibeVoiceAcousticTokenizerConfig,
                VibeVoiceAcousticTokenizerModel,
            )

            built: nn.Module = VibeVoiceAcousticTokenizerModel(
                VibeVoiceAcousticTokenizerConfig(**network_config)
            )
            return built

        if unknown := sorted(set(network_config) - set(_NETWORK_KEYS)):
            raise ValueError(f"unknown settings {unknown} of the network; known: {_NETWORK_KEYS}")
        network: Any = build_network(self.name, "transformers", build, seed)
        config = network.config
        reach = _encoder_reach(config)
        super().__init__(
            network,
            Timebase(sample_rate, config.hop_length),
            config.channels,
            config.hidden_size,
            reach,
            Reach(before=0, after=0),
        )

    @classmethod
    def from_config(cls, values: dict[str, Any], seed: int = 0) -> VibeVoiceCodec:
        """An untrained codec from the values of `config_dict`, without the name."""
        return cls(values["network"], values["sample_rate"], seed)

    @staticmethod
    def network_config(published: dict[str, Any]) -> dict[str, Any]:
        """The part of a published configuration that fixes the network."""
        return {name: published[name] for name in _NETWORK_KEYS if name in published}

    def config_dict(self) -> dict[str, Any]:
        """Plain values from which the registry builds the same architecture again."""
        values = {name: getattr(self.network.config, name) for name in _NETWORK_KEYS}
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
        return {
            "name": self.name,
            "sample_rate": self.timebase.sample_rate,
            "network": plain,
        }

    def initial_state(self) -> dict[str, Tensor]:
        """Silence before the first piece, `channels seq` by layer."""
        layers = [layer for layer in self.network.decoder.modules() if hasattr(layer, "cache_key")]
        weight = next(self.network.decoder.parameters())
        return {
            layer.cache_key: weight.new_zeros(layer.in_channels, layer.left_pad) for layer in layers
        }

    @torch.no_grad()
    def decode_stream(
        self,
        latents: Float[Tensor, "batch frames latent_dim"],
        states: Sequence[Any],
        is_last: Sequence[bool],
    ) -> tuple[list[Float[Tensor, "channels samples"]], list[Any]]:
        """Next piece of each request, without delay.

        Raises:
            ValueError: If the counts of rows, states and flags differ.
        """
        check_rows(latents, states, is_last)
        if not latents.shape[1]:
            return [latents.new_zeros(self.num_channels, 0) for _ in states], list(states)
        past = _Past({key: torch.stack([s[key] for s in states]) for key in states[0]})
        pieces = self.network.decode(latents, padding_cache=past).audio
        following = [
            {key: layer[row].clone() for key, layer in past.layers.items()}
            for row in range(len(states))
        ]
        return list(pieces), following

    def _posterior(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.network.encode(waveform, sample=False).latents
        return mean, torch.full_like(mean, math.log(self.network.config.vae_std))

    def _waveform(self, latents: Tensor) -> Tensor:
        samples: Tensor = self.network.decode(latents).audio
        return samples


def _encoder_reach(config: Any) -> Reach:
    """From one latent step back to the first sample it sees; nothing sees a later one."""
    before = config.kernel_size - 1
    stages = list(zip(config.downsampling_ratios, config.depths[1:], strict=True))
    for stride, depth in reversed(stages):
        before = (before + depth * (config.kernel_size - 1)) * stride + stride
    before += (config.depths[0] + 1) * (config.kernel_size - 1)
    return Reach(before=-(-before // config.hop_length), after=0)
