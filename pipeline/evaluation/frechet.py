"""Distances between two sets of embeddings: Fréchet distance, its limit, and kernel distance.

The built-in embedding is the mean and spread over time of log-mel bands. The distance over it is
called mel-FD: it orders models of one project, and is not comparable with published FAD values,
which use VGGish or CLAP embeddings.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist, pdist
from torch import Tensor

from pipeline.evaluation.distance import at_level, log_mel

BANDS_PER_FEATURE = 4
"""Neighbouring mel bands averaged into one feature: fewer clips are needed for a covariance."""
MIN_CLIPS_PER_DIMENSION = 2
"""Clips for each dimension of an embedding below which no Fréchet distance is reported: the
covariance would be close to singular, and the bias by the number of clips larger than the value."""
_SUBSETS = 8
_DRAWS = 4


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
    _check(ours, theirs)
    ridge = shrinkage * np.eye(ours.shape[1])
    cov_a, cov_b = np.cov(ours, rowvar=False) + ridge, np.cov(theirs, rowvar=False) + ridge
    # sqrtm of the symmetric form stays real: sqrt(A) B sqrt(A).
    root_a = scipy.linalg.sqrtm(cov_a).real
    cross = scipy.linalg.sqrtm(root_a @ cov_b @ root_a).real
    gap = ours.mean(0) - theirs.mean(0)
    return float(gap @ gap + np.trace(cov_a + cov_b - 2 * cross))


def extrapolated_distance(
    ours: NDArray[np.float64], theirs: NDArray[np.float64], seed: int = 0
) -> float:
    """Fréchet distance extrapolated to infinitely many clips.

    The bias of the distance falls with one over the number of clips. Distances of random subsets
    between half of the clips and all of them are fitted by a line in one over their number, whose
    intercept is returned. Both sets shrink together, since both are biased.

    Args:
        ours: Embeddings of generated clips, `clips features`.
        theirs: Embeddings of reference clips.
        seed: Seed of the subsets.

    Raises:
        ValueError: If a set has fewer than four clips or the widths differ.

    Source:
        FID-infinity, arXiv:1911.07023, section 3; for audio, arXiv:2311.01616.
    """
    _check(ours, theirs)
    count = min(len(ours), len(theirs))
    if count < 4:
        raise ValueError(f"{count} clips; an extrapolation needs at least four")
    random = np.random.default_rng(seed)
    sizes = np.unique(np.linspace(count // 2, count, _SUBSETS).round().astype(int))
    points = []
    for size in sizes:
        for _ in range(_DRAWS):
            some = random.choice(len(ours), size, replace=False)
            others = random.choice(len(theirs), size, replace=False)
            points.append((1 / size, frechet_distance(ours[some], theirs[others])))
    inverse, distances = np.array(points).T
    return float(np.polynomial.Polynomial.fit(inverse, distances, 1).convert().coef[0])


def kernel_distance(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """Unbiased squared maximum mean discrepancy with a Gaussian kernel, times 1000.

    The bandwidth is the median distance between two clips of the reference.

    Args:
        ours: Embeddings of generated clips, `clips features`.
        theirs: Embeddings of reference clips.

    Raises:
        ValueError: If a set has fewer than two clips or the widths differ.

    Source:
        Gretton et al. 2012, Eq. 3; as a distance of audio, arXiv:2502.15602.
    """
    _check(ours, theirs)
    bandwidth = float(np.median(pdist(theirs))) or 1.0

    def kernel(distances: NDArray[np.float64]) -> float:
        """Mean of the Gaussian kernel over distances."""
        return float(np.exp(-np.square(distances) / (2 * bandwidth**2)).mean())

    within = kernel(pdist(ours)) + kernel(pdist(theirs))
    return 1000 * (within - 2 * kernel(cdist(ours, theirs)))


def _check(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> None:
    if min(len(ours), len(theirs)) < 2:
        raise ValueError(f"{len(ours)} and {len(theirs)} clips; each set needs at least two")
    if ours.shape[1] != theirs.shape[1]:
        raise ValueError(f"embedding widths {ours.shape[1]} and {theirs.shape[1]} differ")
