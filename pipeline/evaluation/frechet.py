"""Fréchet distance between two sets of clips, over embeddings that need no download.

The embedding is the mean and spread over time of log-mel bands. The distance is therefore called
mel-FD: it orders models of one project, and must not be set beside published FAD values, which
use VGGish or CLAP embeddings.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.evaluation.distance import at_level, log_mel

BANDS_PER_FEATURE = 4
"""Neighbouring mel bands averaged into one feature: fewer clips are needed for a covariance."""


def mel_embedding(waveform: Tensor, sample_rate: int) -> NDArray[np.float64]:
    """Embedding of one clip: mean and standard deviation over time of 20 log-mel features.

    Args:
        waveform: `channels samples`; channels are averaged.
        sample_rate: Hz.
    """
    mono = at_level(waveform.float().mean(0, keepdim=True))
    bands = log_mel(mono, sample_rate)[0]
    features = bands.reshape(-1, BANDS_PER_FEATURE, bands.shape[-1]).mean(1)
    spread = features.std(-1) if features.shape[-1] > 1 else torch.zeros(features.shape[0])
    return torch.cat([features.mean(-1), spread]).double().numpy()


def frechet_distance(
    ours: NDArray[np.float64], theirs: NDArray[np.float64], *, shrinkage: float = 1e-3
) -> float:
    """Fréchet distance between Gaussians fitted to two sets of embeddings, `clips features`.

    Args:
        ours: Embeddings of generated clips.
        theirs: Embeddings of reference clips.
        shrinkage: Added to both covariance diagonals; keeps small sets well conditioned.

    Raises:
        ValueError: If a set has fewer than two clips or the widths differ.

    Source:
        Dowson and Landau 1982; arXiv:1812.08466, Eq. 1.
    """
    if min(len(ours), len(theirs)) < 2:
        raise ValueError(f"{len(ours)} and {len(theirs)} clips; each set needs at least two")
    if ours.shape[1] != theirs.shape[1]:
        raise ValueError(f"embedding widths {ours.shape[1]} and {theirs.shape[1]} differ")
    ridge = shrinkage * np.eye(ours.shape[1])
    cov_a, cov_b = np.cov(ours, rowvar=False) + ridge, np.cov(theirs, rowvar=False) + ridge
    # sqrtm of the symmetric form stays real: sqrt(A) B sqrt(A).
    root_a = scipy.linalg.sqrtm(cov_a).real
    cross = scipy.linalg.sqrtm(root_a @ cov_b @ root_a).real
    gap = ours.mean(0) - theirs.mean(0)
    return float(gap @ gap + np.trace(cov_a + cov_b - 2 * cross))
