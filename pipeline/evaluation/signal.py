"""Measures of one waveform without a reference: length, level, silence, clipping."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SILENCE_DBFS = -60.0
FRAME_S = 0.02
CLIPPED_AT = 0.999


@dataclass(frozen=True)
class SignalFacts:
    """Measurements of one clip, units in the names."""

    duration_s: float
    level_dbfs: float
    peak_dbfs: float
    silent_share: float
    clipped_share: float
    is_finite: bool


def examine(waveform: Tensor, sample_rate: int) -> SignalFacts:
    """Facts of a waveform, `channels samples`.

    Raises:
        ValueError: If it is empty.
    """
    if waveform.numel() == 0:
        raise ValueError("the waveform is empty")
    clean = torch.nan_to_num(waveform.float(), nan=0.0, posinf=0.0, neginf=0.0)
    frame = max(1, round(FRAME_S * sample_rate))
    whole = clean.shape[-1] // frame * frame
    if whole:
        frames = clean[:, :whole].reshape(clean.shape[0], -1, frame).pow(2).mean((0, 2))
        silent = float((frames < 10 ** (SILENCE_DBFS / 10)).float().mean())
    else:
        silent = float(clean.abs().max() == 0)
    return SignalFacts(
        duration_s=waveform.shape[-1] / sample_rate,
        level_dbfs=_dbfs(float(clean.pow(2).mean().sqrt())),
        peak_dbfs=_dbfs(float(clean.abs().max())),
        silent_share=silent,
        clipped_share=float((clean.abs() >= CLIPPED_AT).float().mean()),
        is_finite=bool(torch.isfinite(waveform).all()),
    )


def _dbfs(amplitude: float) -> float:
    return 20 * math.log10(max(amplitude, 1e-6))
