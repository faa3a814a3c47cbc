"""What every audio codec gives: a Gaussian posterior per frame, and PCM back."""

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
    """

    name: str
    timebase: Timebase
    num_channels: int
    latent_dim: int

    def encode(
        self,
        waveform: Float[Tensor, "batch channels samples"],
        num_samples: Int[Tensor, " batch"] | None = None,
    ) -> Posterior:
        """Posterior of `timebase.num_frames(samples)` frames.

        Args:
            waveform: At the codec's own rate and channel count.
            num_samples: Valid samples of each row; later ones are padding that never changes a
                result: the first `num_frames(num_samples[i])` frames of row i equal those of the
                row encoded alone.

        Raises:
            ValueError: On a wrong channel count or an empty waveform.
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
