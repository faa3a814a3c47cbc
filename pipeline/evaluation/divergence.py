"""Divergence and inception score of class posteriors."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.special
from numpy.typing import NDArray

_FLOOR = 1e-6

Array = NDArray[np.floating[Any]]


def kl_divergence(reference: Array, estimate: Array) -> float:
    """Kullback-Leibler divergence of two class posteriors, nats.

    Args:
        reference: Posterior of the recording, one probability for each class.
        estimate: Posterior of the audio that is judged; probabilities below 1e-6 count as 1e-6.

    Raises:
        ValueError: If the numbers of classes differ.

    Source:
        Kullback and Leibler 1951; as a measure of audio, arXiv:2209.15352, section 4.
    """
    if reference.shape != estimate.shape:
        raise ValueError(f"{reference.shape} and {estimate.shape} classes must be equally many")
    ours, theirs = (np.maximum(p.astype(np.float64), _FLOOR) for p in (reference, estimate))
    return float(scipy.special.rel_entr(ours / ours.sum(), theirs / theirs.sum()).sum())


def inception_score(posteriors: Array) -> float:
    """Exponential of the mean divergence of each posterior from the mean posterior.

    Args:
        posteriors: `clips classes`.

    Raises:
        ValueError: If there is no clip.

    Source:
        arXiv:1606.03498, section 4, without splits.
    """
    if not len(posteriors):
        raise ValueError("no clip has a posterior")
    mean = posteriors.mean(0)
    return float(np.exp(scipy.special.rel_entr(posteriors, mean).sum(-1).mean()))
