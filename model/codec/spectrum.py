"""Log magnitudes of the short-time Fourier transform that codec and spectral head share."""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor
from torch.nn import functional as F

QUIETEST = 6e-6
"""Magnitude of a bin below which nothing is told apart, for a window of unit energy: -104 dBFS."""


def short_time_spectrum(
    waveform: Float[Tensor, "batch channels samples"],
    window: Float[Tensor, " window"],
    hop_length: int,
) -> Complex[Tensor, "batch channels seq bins"]:
    """Spectra of frames centred on hops: `samples / hop_length` of them; time begins with a frame.

    What lies outside the waveform is silent.
    """
    pad = (len(window) - hop_length) // 2
    padded = F.pad(waveform.float(), (pad, len(window) - hop_length - pad))
    return torch.fft.rfft(padded.unfold(-1, len(window), hop_length) * window, dim=-1)


def window_energy(window_length: int) -> float:
    """Root of the sum of squares of a Hann window: magnitudes divided by it do not depend on the
    window's length."""
    return math.sqrt(3 / 8 * window_length)


def log_magnitudes(
    waveform: Float[Tensor, "batch channels samples"],
    window: Float[Tensor, " window"],
    hop_length: int,
) -> Float[Tensor, "batch channels seq bins"]:
    """Natural logarithm of magnitudes under a window of unit energy, not below `QUIETEST`."""
    spectrum = short_time_spectrum(waveform, window, hop_length)
    return (spectrum.abs() / window_energy(len(window))).clamp(min=QUIETEST).log()
