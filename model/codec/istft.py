"""The spectral head: magnitude and phase per frame, and overlap-add that can be cut anywhere."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

MAX_MAGNITUDE = 1e2
"""Ceiling of a bin's magnitude; the exponential would overflow first."""


class SpectralHead(nn.Module):
    """Features to the frames of an inverse STFT.

    Source:
        Vocos, arXiv:2306.00814, section 3.3.
    """

    window: Tensor

    def __init__(self, hidden_dim: int, num_channels: int, window_length: int) -> None:
        super().__init__()
        self.num_channels, self.window_length = num_channels, window_length
        self.project = nn.Linear(hidden_dim, num_channels * (window_length + 2))
        self.register_buffer("window", torch.hann_window(window_length), persistent=False)

    def forward(
        self, features: Float[Tensor, "batch seq hidden"]
    ) -> Float[Tensor, "batch channels seq window"]:
        """Windowed waveform frames; the Fourier transform runs in float32."""
        shaped = rearrange(self.project(features), "b s (c k) -> b c s k", c=self.num_channels)
        log_magnitude, phase = shaped.float().chunk(2, dim=-1)
        magnitude = log_magnitude.exp().clamp(max=MAX_MAGNITUDE)
        spectrum = torch.complex(magnitude * phase.cos(), magnitude * phase.sin())
        return torch.fft.irfft(spectrum, n=self.window_length, dim=-1) * self.window


def overlap_add(
    frames: Float[Tensor, "batch channels seq window"],
    hop_length: int,
    tail: Float[Tensor, "batch channels overlap"],
) -> tuple[Float[Tensor, "batch channels samples"], Float[Tensor, "batch channels overlap"]]:
    """Sum frames `hop_length` apart, going on from the tail of the piece before.

    Returns:
        The samples no later frame touches, `seq * hop_length` of them, and the new tail.
    """
    batch, channels, length, window = frames.shape
    if not length:
        return frames.new_zeros(batch, channels, 0), tail
    columns = rearrange(frames, "b c s w -> (b c) w s")
    total = (length - 1) * hop_length + window
    summed = nn.functional.fold(
        columns, output_size=(1, total), kernel_size=(1, window), stride=(1, hop_length)
    )
    joined = rearrange(summed, "(b c) 1 1 samples -> b c samples", b=batch)
    overlap = window - hop_length
    joined = torch.cat([joined[..., :overlap] + tail, joined[..., overlap:]], dim=-1)
    return joined[..., : length * hop_length], joined[..., length * hop_length :]
