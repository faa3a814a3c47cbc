"""The spectral head: magnitude and phase per frame, and overlap-add that can be cut anywhere."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

MAX_MAGNITUDE = 1e2
"""Ceiling of a bin's magnitude; the exponential would overflow first."""


class SpectralHead(nn.Module):
    """Features to the frames of an inverse STFT.

    The phase of a bin is predicted relative to a steady tone at the bin's own frequency: constant
    features sound steady, and frames that overlap add up instead of cancelling at random. Vocos
    predicts the phase itself, and has to learn how it advances from frame to frame first.

    Args:
        hidden_dim: Width of the features.
        num_channels: Waveform channels.
        window_length: Samples of a frame.
        hop_length: Samples between frames.

    Source:
        Vocos, arXiv:2306.00814, section 3.3.
    """

    window: Tensor

    def __init__(
        self, hidden_dim: int, num_channels: int, window_length: int, hop_length: int
    ) -> None:
        super().__init__()
        self.num_channels = num_channels
        self.window_length, self.hop_length = window_length, hop_length
        self.num_bins = window_length // 2 + 1
        self.project = nn.Linear(hidden_dim, num_channels * 2 * self.num_bins)
        self.register_buffer("window", torch.hann_window(window_length), persistent=False)
        self._begin()

    def forward(
        self,
        features: Float[Tensor, "batch seq hidden"],
        num_before: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch channels seq window"]:
        """Windowed waveform frames; the Fourier transform runs in float32.

        Args:
            features: One vector per frame.
            num_before: Frames of each row's waveform before these; None is the beginning.
        """
        shaped = rearrange(self.project(features), "b s (c k) -> b c s k", c=self.num_channels)
        log_magnitude, phase = shaped.float().chunk(2, dim=-1)
        magnitude = log_magnitude.exp().clamp(max=MAX_MAGNITUDE)
        phase = phase + self._advance(features.shape[1], num_before)
        spectrum = torch.complex(magnitude * phase.cos(), magnitude * phase.sin())
        return torch.fft.irfft(spectrum, n=self.window_length, dim=-1) * self.window

    def _advance(
        self, num_frames: int, num_before: Tensor | None
    ) -> Float[Tensor, "batch 1 seq bins"]:
        """Phase that a tone at each bin's frequency has reached at each frame."""
        device = self.window.device
        frame = torch.arange(num_frames, device=device)[None]
        if num_before is not None:
            frame = frame + num_before[:, None]
        # Whole turns are taken off as integers: float32 would lose the phase of long streams.
        reached = frame * self.hop_length % self.window_length
        turns = reached[..., None] * torch.arange(self.num_bins, device=device) % self.window_length
        return (2 * torch.pi / self.window_length) * turns[:, None].float()

    @torch.no_grad()
    def _begin(self) -> None:
        """Begin as quiet noise that falls with frequency, much as recordings do."""
        bias = rearrange(self.project.bias, "(c two k) -> two c k", two=2, k=self.num_bins)
        position = torch.arange(self.num_bins) / self.num_bins
        bias[0] = -2 - torch.log1p(8 * position)
        bias[1] = torch.pi * (2 * torch.rand(bias[1].shape) - 1)


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
