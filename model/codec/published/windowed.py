"""Base of the adapters of published codecs: exact segments and streams by their bounded reach."""

from __future__ import annotations

import abc
import warnings
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from model.codec.protocol import Posterior, check_rows, check_waveform
from model.codec.segments import (
    Reach,
    WindowState,
    decode_in_pieces,
    decode_windows,
    encode_in_segments,
)
from model.codec.vae.encoder import silence_after
from model.timebase import Timebase


class WindowedCodec(nn.Module, abc.ABC):
    """An `AudioCodec` around the model of a library whose layers reach a bounded number of frames.

    A waveform is taken to go on in silence behind its end, as far as the encoder reaches: so the
    padding of a batch changes nothing. The library alone would take its layers' inputs to be zero
    there, which gives other values for the last frames.

    Args:
        network: The library's model.
        timebase: Sample rate and samples a latent frame.
        num_channels: Waveform channels.
        latent_dim: Width of a latent frame.
        encoder_reach: Frames around a frame that its posterior depends on.
        decoder_reach: Frames around a frame that its samples depend on.
    """

    name: str

    def __init__(
        self,
        network: nn.Module,
        timebase: Timebase,
        num_channels: int,
        latent_dim: int,
        encoder_reach: Reach,
        decoder_reach: Reach,
    ) -> None:
        super().__init__()
        if num_channels not in (1, 2):
            raise ValueError(f"the network has {num_channels} channels; 1 and 2 are supported")
        self.network: Any = network
        self.timebase = timebase
        self.num_channels = num_channels
        self.latent_dim = latent_dim
        self.encoder_reach, self.decoder_reach = encoder_reach, decoder_reach
        self.delay_samples = timebase.num_samples(decoder_reach.after)

    def encode(
        self,
        waveform: Float[Tensor, "batch channels samples"],
        num_samples: Int[Tensor, " batch"] | None = None,
        sample_rate: int | None = None,
    ) -> Posterior:
        """Posterior of every frame; see `AudioCodec.encode`.

        Raises:
            ValueError: On a wrong rate or channel count, an empty waveform, or lengths outside it.
        """
        check_waveform(self, waveform, num_samples, sample_rate)
        return encode_in_segments(
            waveform, num_samples, self._encode_segment, self.timebase, self.encoder_reach
        )

    def decode(
        self, latents: Float[Tensor, "batch frames latent_dim"]
    ) -> Float[Tensor, "batch channels samples"]:
        """Waveform of `frames * hop_length` samples."""
        return decode_in_pieces(self, latents)

    def initial_state(self) -> Any:
        """State of one request before its first piece."""
        weight = next(self.network.parameters())
        return WindowState(weight.new_zeros(0, self.latent_dim), 0)

    @torch.no_grad()
    def decode_stream(
        self,
        latents: Float[Tensor, "batch frames latent_dim"],
        states: Sequence[Any],
        is_last: Sequence[bool],
    ) -> tuple[list[Float[Tensor, "channels samples"]], list[Any]]:
        """Next piece of each request; the delay is `delay_samples`.

        Every piece decodes again what the decoder's reach needs of the frames around it.

        Raises:
            ValueError: If the counts of rows, states and flags differ.
        """
        check_rows(latents, states, is_last)
        return decode_windows(
            latents,
            states,
            is_last,
            self._waveform,
            self.decoder_reach,
            hop_length=self.timebase.hop_length,
            num_channels=self.num_channels,
        )

    @torch.no_grad()
    def _encode_segment(
        self, waveform: Tensor, num_samples: Tensor | None
    ) -> tuple[Float[Tensor, "batch frames latent_dim"], Float[Tensor, "batch frames latent_dim"]]:
        num_frames = self.timebase.num_frames(waveform.shape[-1])
        if num_samples is not None:
            waveform = silence_after(waveform, num_samples)
        padded = self.timebase.num_samples(num_frames + self.encoder_reach.after)
        mean, log_std = self._posterior(F.pad(waveform, (0, padded - waveform.shape[-1])))
        return mean[:, :num_frames], log_std[:, :num_frames]

    @abc.abstractmethod
    def config_dict(self) -> dict[str, Any]:
        """Plain values from which the registry builds the same architecture again."""

    @abc.abstractmethod
    def _posterior(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of whole frames."""

    @abc.abstractmethod
    def _waveform(self, latents: Tensor) -> Tensor:
        """Samples of whole frames."""


def build_network(codec: str, package: str, build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """The untrained model of an optional library; the same seed always gives the same weights.

    Args:
        codec: Registry name, for the error.
        package: Package that the extra installs.
        build: Imports the library and builds the model.
        seed: Seed of the initial weights.

    Raises:
        ValueError: If the library is not installed or does not take the configuration.
    """
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # diffusers still calls torch's older weight_norm, whose names its checkpoints have.
            warnings.filterwarnings("ignore", message=".*weight_norm", category=FutureWarning)
            torch.manual_seed(seed)
            return build()
    except ImportError as error:
        raise ValueError(
            f"codec {codec} needs the package {package}; install the extra `codecs`"
        ) from error
    except TypeError as error:
        raise ValueError(f"{package} does not take this configuration: {error}") from error


def plain_config(network: nn.Module) -> dict[str, Any]:
    """Resolved configuration of a diffusers model as JSON values, private keys left out."""
    items = cast("Any", network).config.items()
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in items
        if not name.startswith("_")
    }
