"""The codec of the paper: a variational autoencoder with a streaming decoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from model.codec.config import CodecConfig, codec_config_from_dict
from model.codec.decoder import Decoder, DecoderState
from model.codec.encoder import Encoder, silence_after
from model.codec.protocol import Posterior

_FRAMES_PER_PIECE = 64


class VAECodec(nn.Module):
    """An `AudioCodec`: the encoder sees both directions, the decoder only the past.

    Args:
        config: Shapes.
        seed: Of the initial weights.
    """

    name = "vae"

    def __init__(self, config: CodecConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.timebase = config.timebase
        self.num_channels = config.num_channels
        self.latent_dim = config.latent_dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder = Encoder(config)
            self.decoder = Decoder(config)

    @classmethod
    def from_config(cls, values: dict[str, Any], seed: int = 0) -> VAECodec:
        """An untrained codec from the values of `config_dict`, without the name."""
        return cls(codec_config_from_dict(values), seed)

    def config_dict(self) -> dict[str, Any]:
        """Plain values from which the registry builds the same architecture again."""
        return self.describe(self.config)

    @classmethod
    def describe(cls, config: CodecConfig) -> dict[str, Any]:
        """A configuration as plain JSON values, under the name of this architecture."""
        values = dataclasses.asdict(config)
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
        return {"name": cls.name, **plain}

    def encode(
        self,
        waveform: Float[Tensor, "batch channels samples"],
        num_samples: Int[Tensor, " batch"] | None = None,
    ) -> Posterior:
        """Posterior of every frame; see `AudioCodec.encode`.

        Raises:
            ValueError: On a wrong channel count, an empty waveform, or lengths outside it.
        """
        length = self._check(waveform, num_samples)
        hop_length = self.timebase.hop_length
        num_frames = None
        if num_samples is not None and bool((num_samples < length).any()):
            waveform = silence_after(waveform, num_samples)
            num_frames = -(-num_samples // hop_length)
        waveform = F.pad(waveform, (0, -length % hop_length))
        with torch.no_grad():
            return Posterior(*self.encoder(waveform, num_frames))

    def decode(
        self, latents: Float[Tensor, "batch frames latent_dim"]
    ) -> Float[Tensor, "batch channels samples"]:
        """Waveform of `frames * hop_length` samples, in memory linear in the length."""
        states: list[Any] = [self.initial_state() for _ in range(latents.shape[0])]
        pieces = []
        chunks = latents.split(_FRAMES_PER_PIECE, dim=1) if latents.shape[1] else [latents]
        for index, chunk in enumerate(chunks):
            is_last = [index == len(chunks) - 1] * len(states)
            rows, states = self.decode_stream(chunk, states, is_last)
            pieces.append(torch.stack(rows))
        return torch.cat(pieces, dim=-1)

    def initial_state(self) -> DecoderState:
        """State of one request before its first piece."""
        return self.decoder.initial_state()

    def decode_stream(
        self,
        latents: Float[Tensor, "batch frames latent_dim"],
        states: Sequence[Any],
        is_last: Sequence[bool],
    ) -> tuple[list[Float[Tensor, "channels samples"]], list[Any]]:
        """Next piece of each request; the delay is 1.5 hops of the spectral head.

        Raises:
            ValueError: If the counts of rows, states and flags differ.
        """
        if not latents.shape[0] == len(states) == len(is_last) > 0:
            raise ValueError(
                f"{latents.shape[0]} rows of latents, {len(states)} states and {len(is_last)} "
                "is_last flags; there must be one of each per request"
            )
        with torch.no_grad():
            pieces, following = self.decoder.stream(latents, states, is_last)
        return pieces, list(following)

    def _check(self, waveform: Tensor, num_samples: Tensor | None) -> int:
        batch, channels, length = waveform.shape
        if channels != self.num_channels:
            raise ValueError(
                f"waveform has {channels} channels, the codec {self.num_channels}; convert it first"
            )
        if not batch or not length:
            raise ValueError(
                f"waveform of {batch} rows and {length} samples is empty; give at least one each"
            )
        if num_samples is not None and not bool(
            ((num_samples > 0) & (num_samples <= length)).all()
        ):
            raise ValueError(
                f"num_samples {num_samples.tolist()} must lie in 1..{length}, one per row"
            )
        return length
