"""The spectral head: magnitude and phase per frame, and overlap-add that can be cut anywhere."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Complex, Float, Int
from torch import Tensor, nn

from model.codec.spectrum import QUIETEST, short_time_spectrum, window_energy
from model.codec.tiny.phase import excitation, initial_phases, noise_spectra
from model.codec.tiny.pulse import Pulses

MAX_MAGNITUDE = 1e2
"""Ceiling of a bin's magnitude; the exponential would overflow first."""

_MARGIN = 0.5
"""What is at most this far above the quietest magnitude, nats, is silent."""


@dataclass(frozen=True)
class HeadSpectrum:
    """Predictions of the head for every frame, float32.

    Attributes:
        log_magnitude: Natural logarithm of the magnitude of each bin.
        phase: Offset of each bin's phase from that of a steady tone, radians; None if phases follow
            from the magnitudes.
        pulses: Pulses of the voice, if one is known; they replace what follows from the magnitudes.
    """

    log_magnitude: Float[Tensor, "batch channels seq bins"]
    phase: Float[Tensor, "batch channels seq bins"] | None
    pulses: Pulses | None = None


class SpectralHead(nn.Module):
    """Features to the frames of an inverse STFT.

    A predicted phase is relative to a steady tone at the bin's own frequency: constant features
    sound steady, and frames that overlap add up instead of cancelling at random. Vocos predicts the
    phase itself, and has to learn how it advances from frame to frame first. With `is_propagated`
    the phase is not predicted: it follows from the magnitudes.

    Args:
        hidden_dim: Width of the features.
        num_channels: Waveform channels.
        window_length: Samples of a frame.
        hop_length: Samples between frames.
        is_propagated: Whether phases follow from the magnitudes.

    Source:
        Vocos, arXiv:2306.00814, section 3.3.
    """

    window: Tensor
    noise: Tensor

    def __init__(
        self,
        hidden_dim: int,
        num_channels: int,
        window_length: int,
        hop_length: int,
        is_propagated: bool = False,
    ) -> None:
        super().__init__()
        self.is_propagated = is_propagated
        self.num_channels = num_channels
        self.window_length, self.hop_length = window_length, hop_length
        self.num_bins = window_length // 2 + 1
        self.num_parts = 1 if is_propagated else 2
        self.project = nn.Linear(hidden_dim, num_channels * self.num_parts * self.num_bins)
        self.register_buffer("window", torch.hann_window(window_length), persistent=False)
        if is_propagated:
            noise = noise_spectra(window_length, hop_length)
            self.register_buffer("noise", noise, persistent=False)
        self._start_quiet()

    def initial_state(self) -> Float[Tensor, "3 channels bins"]:
        """State of the phases before the first frame."""
        return initial_phases(self.num_channels, self.num_bins).to(self.window.device)

    def predict(
        self,
        features: Float[Tensor, "batch seq hidden"],
        linear: Float[Tensor, "batch channels seq bins"] | None = None,
        pulses: Pulses | None = None,
    ) -> HeadSpectrum:
        """Magnitudes and phases of frames, one vector of features each.

        Args:
            features: Features of the frames.
            linear: Log magnitudes under a window of unit energy to which the network adds.
            pulses: Pulses of the voice, if one is known.
        """
        projected = self.project(features).float()
        shaped = rearrange(projected, "b s (c k) -> b c s k", c=self.num_channels)
        log_magnitude, *phase = shaped.chunk(self.num_parts, dim=-1)
        if linear is not None:
            log_magnitude = log_magnitude + linear + math.log(window_energy(self.window_length))
        return HeadSpectrum(log_magnitude, phase[0] if phase else None, pulses)

    def frames(
        self,
        predicted: HeadSpectrum,
        num_before: Int[Tensor, " batch"] | None = None,
        state: Float[Tensor, "batch 3 channels bins"] | None = None,
    ) -> tuple[Float[Tensor, "batch channels seq window"], Tensor]:
        """Windowed waveform frames, and the state after them; Fourier transforms are float32.

        Args:
            predicted: From `predict`.
            num_before: Frames of each row's waveform before these; None is the beginning.
            state: After the frames before these; None is the beginning.
        """
        logs = predicted.log_magnitude.clamp(max=math.log(MAX_MAGNITUDE))
        batch, _, length, _ = logs.shape
        if state is None:
            state = self.initial_state().expand(batch, -1, -1, -1)
        if predicted.phase is None:
            spectrum, state = self._propagated(logs, num_before, state, predicted.pulses)
        else:
            phase = predicted.phase + self._advance(length, num_before)
            spectrum = torch.polar(logs.exp(), phase)
        frames = torch.fft.irfft(spectrum, n=self.window_length, dim=-1) * self.window
        return frames, state

    def analyse(
        self, waveform: Float[Tensor, "batch channels samples"]
    ) -> Complex[Tensor, "batch channels seq bins"]:
        """Complex spectra from which `frames` would give the waveform back: what is predicted."""
        return short_time_spectrum(waveform, self.window, self.hop_length)

    def _propagated(
        self, logs: Tensor, num_before: Tensor | None, state: Tensor, pulses: Pulses | None
    ) -> tuple[Complex[Tensor, "batch channels seq bins"], Tensor]:
        """Spectra whose phases follow from the magnitudes, and the state after them."""
        quietest = math.log(QUIETEST * window_energy(self.window_length))
        # Below what is told apart lies silence: of the power only the excess is heard.
        excess = -torch.expm1(2 * (quietest + _MARGIN - logs).clamp(max=-1e-6))
        logs = logs.clamp(min=quietest)
        excited, state = excitation(
            logs, self.noise, state, num_before, self.window_length, self.hop_length, pulses
        )
        return excess.sqrt() * logs.exp() * excited, state

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
    def start_linear(self) -> None:
        """Initialise with nothing added to the magnitudes of `linear`."""
        self.project.weight.zero_()
        self.project.bias.zero_()

    @torch.no_grad()
    def _start_quiet(self) -> None:
        """Initialise as quiet noise that falls with frequency, much as recordings do."""
        bias = rearrange(
            self.project.bias, "(c parts k) -> parts c k", parts=self.num_parts, k=self.num_bins
        )
        position = torch.arange(self.num_bins) / self.num_bins
        bias[0] = -2 - torch.log1p(8 * position)
        bias[1:] = math.pi * (2 * torch.rand(bias[1:].shape) - 1)


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
