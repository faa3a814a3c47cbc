"""The spectral head: magnitude and phase per frame, and overlap-add that can be cut anywhere."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Complex, Float, Int
from torch import Tensor, nn

MAX_MAGNITUDE = 1e2
"""Ceiling of a bin's magnitude; the exponential would overflow first."""


@dataclass(frozen=True)
class HeadSpectrum:
    """What the head predicts of every frame, float32.

    Attributes:
        log_magnitude: Natural logarithm of the magnitude of each bin.
        phase: Offset of each bin's phase, radians.
        drift: Turn of each bin from frame to frame beyond that of a tone at the bin's frequency,
            radians; None if tones are steady.
    """

    log_magnitude: Float[Tensor, "batch channels seq bins"]
    phase: Float[Tensor, "batch channels seq bins"]
    drift: Float[Tensor, "batch channels seq bins"] | None


class SpectralHead(nn.Module):
    """Features to the frames of an inverse STFT.

    The phase of a bin is predicted relative to a steady tone at the bin's own frequency: constant
    features sound steady, and frames that overlap add up instead of cancelling at random. Vocos
    predicts the phase itself, and has to learn how it advances from frame to frame first. With
    `is_integrated` the tone's frequency is predicted too and summed over frames: what comes before
    a frame sets where its phases start, and features that stand still hold any pitch.

    Args:
        hidden_dim: Width of the features.
        num_channels: Waveform channels.
        window_length: Samples of a frame.
        hop_length: Samples between frames.
        is_integrated: Whether frequencies are predicted and summed.

    Source:
        Vocos, arXiv:2306.00814, section 3.3.
    """

    window: Tensor

    def __init__(
        self,
        hidden_dim: int,
        num_channels: int,
        window_length: int,
        hop_length: int,
        is_integrated: bool = False,
    ) -> None:
        super().__init__()
        self.is_integrated = is_integrated
        self.num_parts = 3 if is_integrated else 2
        self.num_channels = num_channels
        self.window_length, self.hop_length = window_length, hop_length
        self.num_bins = window_length // 2 + 1
        self.project = nn.Linear(hidden_dim, num_channels * self.num_parts * self.num_bins)
        self.register_buffer("window", torch.hann_window(window_length), persistent=False)
        self._begin()

    def initial_state(self) -> Float[Tensor, "channels bins"]:
        """Turns summed before the first frame, radians; float64, so that long streams stay true."""
        shape = (self.num_channels, self.num_bins)
        return torch.zeros(shape, dtype=torch.float64, device=self.window.device)

    def predict(self, features: Float[Tensor, "batch seq hidden"]) -> HeadSpectrum:
        """Magnitudes and phases of frames, one vector of features each."""
        projected = self.project(features).float()
        shaped = rearrange(projected, "b s (c k) -> b c s k", c=self.num_channels)
        parts = shaped.chunk(self.num_parts, dim=-1)
        return HeadSpectrum(parts[0], parts[1], parts[2] if self.is_integrated else None)

    def frames(
        self,
        predicted: HeadSpectrum,
        num_before: Int[Tensor, " batch"] | None = None,
        turned: Float[Tensor, "batch channels bins"] | None = None,
    ) -> tuple[Float[Tensor, "batch channels seq window"], Tensor]:
        """Windowed waveform frames, and the turns summed so far; Fourier transforms are float32.

        Args:
            predicted: From `predict`.
            num_before: Frames of each row's waveform before these; None is the beginning.
            turned: Turns summed before these frames; None is the beginning.
        """
        magnitude = predicted.log_magnitude.exp().clamp(max=MAX_MAGNITUDE)
        batch, _, length, _ = magnitude.shape
        phase = predicted.phase + self._advance(length, num_before)
        if turned is None:
            turned = self.initial_state().expand(batch, -1, -1)
        if predicted.drift is not None:
            turns = turned[:, :, None] + predicted.drift.detach().double().cumsum(dim=2)
            # A gradient reaches its own frame only: through the later ones it is mostly noise.
            own = predicted.drift - predicted.drift.detach()
            phase = phase + torch.remainder(turns, 2 * torch.pi).float() + own
            turned = torch.remainder(turns[:, :, -1], 2 * torch.pi)
        spectrum = torch.complex(magnitude * phase.cos(), magnitude * phase.sin())
        frames = torch.fft.irfft(spectrum, n=self.window_length, dim=-1) * self.window
        return frames, turned

    def analyse(
        self, waveform: Float[Tensor, "batch channels samples"]
    ) -> Complex[Tensor, "batch channels seq bins"]:
        """Complex spectra from which `frames` would give the waveform back: what is predicted."""
        pad = (self.window_length - self.hop_length) // 2
        padded = nn.functional.pad(waveform.float(), (pad, pad))
        cut = padded.unfold(-1, self.window_length, self.hop_length)
        return torch.fft.rfft(cut * self.window, dim=-1)

    def drift_of(
        self, spectrum: Complex[Tensor, "batch channels seq bins"]
    ) -> Float[Tensor, "batch channels seq-1 bins"]:
        """Measured turn of each bin from each frame to the next, less that of a steady tone.

        One frame fewer than the spectrum has; radians, up to whole turns.
        """
        turned = (spectrum[..., 1:, :] * spectrum[..., :-1, :].conj()).angle()
        return turned - self._advance(2, None)[:, :, 1:]

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
        bias = rearrange(
            self.project.bias, "(c parts k) -> parts c k", parts=self.num_parts, k=self.num_bins
        )
        position = torch.arange(self.num_bins) / self.num_bins
        bias[0] = -2 - torch.log1p(8 * position)
        bias[1] = torch.pi * (2 * torch.rand(bias[1].shape) - 1)
        bias[2:] = 0


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
