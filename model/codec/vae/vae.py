"""The codec of the paper: a variational autoencoder with a streaming decoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from model.codec.protocol import Posterior, check_rows, check_waveform
from model.codec.segments import decode_in_pieces, encode_in_segments
from model.codec.vae.codec_config import CodecConfig, codec_config_from_dict
from model.codec.vae.decoder import Decoder, DecoderState
from model.codec.vae.encoder import Encoder, encoder_reach, silence_after


class VAECodec(nn.Module):
    """An `AudioCodec`: the encoder sees both directions, the decoder only the past.

    Args:
        config: Shapes.
        seed: Seed of the initial weights.
    """

    name = "vae"

    def __init__(self, config: CodecConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.timebase = config.timebase
        self.num_channels = config.num_channels
        self.latent_dim = config.latent_dim
        self.delay_samples = (config.head_window - config.head_hop) // 2
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

    def start_linear(self, waveforms: list[Float[Tensor, "batch channels samples"]]) -> None:
        """Initialise as the best linear codec of some waveforms, from which training starts.

        Args:
            waveforms: Whole frames of samples, some minutes of the corpus in all.

        Raises:
            ValueError: If the configuration has no `principal_bands`.
        """
        if not self.config.principal_bands:
            raise ValueError(
                "the codec has no principal_bands, which a linear start needs; set them in its "
                "configuration, or train from random weights"
            )
        self.decoder.start_linear(self.encoder.start_linear(waveforms))

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
        sample_rate: int | None = None,
    ) -> Posterior:
        """Posterior of every frame, in memory that does not grow with the length.

        See `AudioCodec.encode`.

        Raises:
            ValueError: On a wrong rate or channel count, an empty waveform, or lengths outside it.
        """
        check_waveform(self, waveform, num_samples, sample_rate)
        return encode_in_segments(
            waveform, num_samples, self._posterior, self.timebase, encoder_reach(self.config)
        )

    def decode(
        self, latents: Float[Tensor, "batch frames latent_dim"]
    ) -> Float[Tensor, "batch channels samples"]:
        """Waveform of `frames * hop_length` samples, in memory linear in its length alone."""
        return decode_in_pieces(self, latents)

    def initial_state(self) -> DecoderState:
        """State of one request before its first piece."""
        return self.decoder.initial_state()

    def decode_stream(
        self,
        latents: Float[Tensor, "batch frames latent_dim"],
        states: Sequence[Any],
        is_last: Sequence[bool],
    ) -> tuple[list[Float[Tensor, "channels samples"]], list[Any]]:
        """Next piece of each request; the delay is `delay_samples`.

        Raises:
            ValueError: If the counts of rows, states and flags differ.
        """
        check_rows(latents, states, is_last)
        with torch.no_grad():
            pieces, following = self.decoder.stream(latents, states, is_last)
        return pieces, list(following)

    def _posterior(
        self, waveform: Tensor, num_samples: Tensor | None
    ) -> tuple[Float[Tensor, "batch frames latent_dim"], Float[Tensor, "batch frames latent_dim"]]:
        """Mean and log standard deviation of one segment."""
        length, hop_length = waveform.shape[-1], self.timebase.hop_length
        num_frames = None
        if num_samples is not None and bool((num_samples < length).any()):
            waveform = silence_after(waveform, num_samples)
            num_frames = -(-num_samples // hop_length)
        waveform = F.pad(waveform, (0, -length % hop_length))
        with torch.no_grad():
            mean, log_std = self.encoder(waveform, num_frames)
        return mean, log_std
