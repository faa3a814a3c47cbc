"""Protocol of audio codecs: a Gaussian posterior per frame, and PCM back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from model.timebase import Timebase


@dataclass(frozen=True)
class Posterior:
    """Diagonal Gaussian over the latents of a batch.

    Attributes:
        mean: Mean of every latent.
        log_std: Natural logarithm of the standard deviation.
    """

    mean: Float[Tensor, "batch frames latent_dim"]
    log_std: Float[Tensor, "batch frames latent_dim"]

    def sample(
        self, generator: torch.Generator | None = None
    ) -> Float[Tensor, "batch frames latent_dim"]:
        """One draw of the latents."""
        noise = torch.empty_like(self.mean).normal_(generator=generator)
        return self.mean + self.log_std.exp() * noise


@runtime_checkable
class AudioCodec(Protocol):
    """An audio VAE behind one interface; implementations are `torch.nn.Module`s in eval mode.

    Attributes:
        name: Registry name of the architecture.
        timebase: Sample rate and hop length.
        num_channels: Waveform channels, 1 or 2.
        latent_dim: Width of one latent frame.
        delay_samples: Samples that `decode_stream` holds back until later latents are there: what
            a decoder that looks ahead costs a listener. Streaming is exact for every codec behind
            this protocol; one whose decoder has no bounded reach does not fit it.
    """

    name: str
    timebase: Timebase
    num_channels: int
    latent_dim: int
    delay_samples: int

    def encode(
        self,
        waveform: Float[Tensor, "batch channels samples"],
        num_samples: Int[Tensor, " batch"] | None = None,
        sample_rate: int | None = None,
    ) -> Posterior:
        """Posterior of `timebase.num_frames(samples)` frames.

        Args:
            waveform: At the codec's own rate and channel count.
            num_samples: Valid samples of each row; later ones are padding that never changes a
                result: the first `num_frames(num_samples[i])` frames of row i equal those of the
                row encoded alone.
            sample_rate: Rate of the waveform, Hz, where the caller has one to be checked.

        Raises:
            ValueError: On a wrong rate or channel count, an empty waveform, or lengths outside it.
        """

    def decode(
        self, latents: Float[Tensor, "batch frames latent_dim"]
    ) -> Float[Tensor, "batch channels samples"]:
        """Waveform of `timebase.num_samples(frames)` samples."""

    def initial_state(self) -> Any:
        """State of one request before its first block: a value, never kept on the module."""

    def decode_stream(
        self,
        latents: Float[Tensor, "batch frames latent_dim"],
        states: Sequence[Any],
        is_last: Sequence[bool],
    ) -> tuple[list[Float[Tensor, "channels samples"]], list[Any]]:
        """Next piece of each request.

        The pieces of one request, concatenated, equal `decode` of its latents for any chunking.
        A row whose `is_last` is true also gives what was held back.
        """

    def config_dict(self) -> dict[str, Any]:
        """Plain values from which the registry builds the same architecture again."""


def check_waveform(
    codec: AudioCodec,
    waveform: Float[Tensor, "batch channels samples"],
    num_samples: Int[Tensor, " batch"] | None,
    sample_rate: int | None,
) -> None:
    """Refuse what a codec cannot encode, with the value and the remedy.

    Raises:
        ValueError: On a wrong rate or channel count, an empty waveform, or lengths outside it.
    """
    batch, channels, length = waveform.shape
    if sample_rate is not None and sample_rate != codec.timebase.sample_rate:
        raise ValueError(
            f"waveform has {sample_rate} Hz, the codec {codec.timebase.sample_rate}; "
            "resample it first"
        )
    if channels != codec.num_channels:
        raise ValueError(
            f"waveform has {channels} channels, the codec {codec.num_channels}; convert it first"
        )
    if not batch or not length:
        raise ValueError(
            f"waveform of {batch} rows and {length} samples is empty; give at least one each"
        )
    if num_samples is not None and not bool(((num_samples > 0) & (num_samples <= length)).all()):
        raise ValueError(f"num_samples {num_samples.tolist()} must lie in 1..{length}, one per row")


def check_rows(
    latents: Float[Tensor, "batch frames latent_dim"],
    states: Sequence[Any],
    is_last: Sequence[bool],
) -> None:
    """Refuse a streamed batch without one state and one flag for each row.

    Raises:
        ValueError: If the counts differ, or there is no row.
    """
    if not latents.shape[0] == len(states) == len(is_last) > 0:
        raise ValueError(
            f"{latents.shape[0]} rows of latents, {len(states)} states and {len(is_last)} "
            "is_last flags; there must be one of each per request"
        )
