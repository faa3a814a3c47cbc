"""The mel scale: evenly spaced pitches as the ear hears them, and filters on it."""

from __future__ import annotations

import functools

import torch
from jaxtyping import Float
from torch import Tensor


def mel_frequencies(num_points: int, sample_rate: int) -> Float[Tensor, " points"]:
    """Frequencies evenly spaced on the mel scale from 0 Hz to half the rate, Hz, float64.

    Source:
        O'Shaughnessy, Speech Communication, 1987: mel = 2595 log10(1 + f / 700).
    """
    top = 2595 * torch.log10(torch.tensor(1 + sample_rate / 2 / 700, dtype=torch.float64))
    points = torch.linspace(0, float(top), num_points, dtype=torch.float64)
    return 700 * (10 ** (points / 2595) - 1)


@functools.lru_cache(maxsize=8)
def mel_filters(num_mels: int, window_length: int, sample_rate: int) -> Float[Tensor, "mels bins"]:
    """Triangular filters over the bins of an STFT, centres evenly spaced on the mel scale.

    Each filter sums to one over the bins; one too narrow for any bin takes the nearest.
    """
    edges = mel_frequencies(num_mels + 2, sample_rate)
    frequency = torch.linspace(0, sample_rate / 2, window_length // 2 + 1, dtype=torch.float64)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (frequency - low) / (centre - low)
    falling = (high - frequency) / (high - centre)
    filters = torch.minimum(rising, falling).clamp(min=0)
    nearest = (frequency - centre).abs().argmin(dim=1)
    empty = filters.sum(dim=1) == 0
    filters[empty, nearest[empty]] = 1.0
    return (filters / filters.sum(dim=1, keepdim=True)).float()
