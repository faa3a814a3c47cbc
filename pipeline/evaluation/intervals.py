"""Bootstrap confidence intervals over clips, or over groups of clips such as speakers."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import scipy.stats
from numpy.typing import NDArray

LEVEL = 0.95
"""Confidence level of every interval."""
MIN_CLIPS = 5
"""Number of clips below which no figure is printed: a bootstrap of fewer is meaningless."""
MIN_CLUSTERS = 5
"""Number of clusters below which no interval is given."""
_RESAMPLES = 2000
_PERMUTATIONS = 10_000
_ENUMERATED = 13  # 2 to this power is about as many as the random permutations
_BATCH = 100  # resamples drawn at a time, to bound memory

Estimate = dict[str, Any]
"""An estimate as plain values: `value`, `low` and `high` of its interval, and `n` clips.

`low` and `high` are None below two clips; `value` is None without any.
"""


def mean(values: Sequence[float | bool], seed: int = 0) -> Estimate:
    """Mean over clips, or the share of clips that are true, with its interval.

    Args:
        values: One value for each clip.
        seed: Seed of the resampling.
    """
    return ratio(values, [1.0] * len(values), seed)


def ratio(
    numerators: Sequence[float | bool],
    denominators: Sequence[float],
    seed: int = 0,
    clusters: Sequence[Hashable] | None = None,
) -> Estimate:
    """Sum of the numerators over the sum of the denominators, with its percentile interval.

    Clips are resampled whole, so that a word error rate is weighted by words and still varies by
    clip. With clusters, all clips of a cluster are resampled together, since the clips of one
    speaker are no independent evidence. If all clips agree, every resample does too, which would
    look like certainty: a share of clips (`bool` numerators) then has the exact binomial interval
    (Clopper-Pearson), which distinguishes 8 of 8 from 200 of 200; any other figure has none.

    Args:
        numerators: One value for each clip, such as word errors.
        denominators: One positive value for each clip, such as the number of reference words.
        seed: Seed of the resampling; the same clips and seed give the same interval.
        clusters: Cluster of each clip, such as its speaker; None takes every clip by itself.
            Below five clusters there is no interval.

    Raises:
        ValueError: If the counts differ or a denominator is not positive.

    Source:
        Efron and Tibshirani 1993, chapter 13 (percentile interval).
    """
    if len(numerators) != len(denominators):
        raise ValueError(f"{len(numerators)} numerators and {len(denominators)} denominators")
    if any(not value > 0 for value in denominators):
        raise ValueError(f"a denominator is {min(denominators)}; each must be positive")
    above, below = np.asarray(numerators, float), np.asarray(denominators, float)
    if not len(above):
        return {"value": None, "low": None, "high": None, "n": 0}
    value, num_clips, least = float(above.sum() / below.sum()), len(above), 2
    if clusters is not None:
        above, below = _by_cluster(np.stack([above, below], -1)[None], clusters)[0].T
        least = MIN_CLUSTERS
    if (above * below[0] == above[0] * below).all():
        low, high = _exact(numerators) if num_clips > 1 else (None, None)
    else:
        low, high = _interval(above, below, seed) if len(above) >= least else (None, None)
    return {"value": value, "low": low, "high": high, "n": num_clips}


def _exact(agreeing: Sequence[float | bool]) -> tuple[float | None, float | None]:
    """Clopper-Pearson interval of a share on which all clips agree; none of another figure."""
    if not all(isinstance(value, bool | np.bool_) for value in agreeing):
        return None, None
    count = sum(bool(value) for value in agreeing)
    if 0 < count < len(agreeing):  # clusters agree, clips do not
        return None, None
    exact = scipy.stats.binomtest(count, len(agreeing)).proportion_ci(LEVEL)
    return float(exact.low), float(exact.high)


def _interval(
    above: NDArray[np.float64], below: NDArray[np.float64], seed: int
) -> tuple[float, float]:
    found = scipy.stats.bootstrap(
        (above, below),
        lambda a, b, axis: a.sum(axis) / b.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=_RESAMPLES,
        batch=_BATCH,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def is_supported(estimate: Estimate) -> bool:
    """Whether there are enough clips to print the figure."""
    return estimate["value"] is not None and estimate["n"] >= MIN_CLIPS


def paired_difference(
    ours: Sequence[tuple[float, float]],
    theirs: Sequence[tuple[float, float]],
    seed: int = 0,
    clusters: Sequence[Hashable] | None = None,
) -> Estimate:
    """Difference of two ratios over the same clips, with its interval and significance.

    The interval is a percentile bootstrap over clips. The p-value is that of a two-sided
    permutation test, in which the two systems change places on random clips; up to 13 clips, all
    ways are enumerated. With clusters, both resample and swap whole clusters.

    Args:
        ours: Numerator and denominator of each clip.
        theirs: Numerator and denominator of the other system, for the same clips in order.
        seed: Seed of the resampling.
        clusters: Cluster of each clip, such as its speaker; None takes every clip by itself.

    Returns:
        An estimate of ours minus theirs, with the key `p`; None below two clips, and without
        interval and `p` below five clusters.

    Raises:
        ValueError: If the numbers of clips differ.

    Source:
        Noreen 1989 (approximate randomisation test); Efron and Tibshirani 1993, chapter 13.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} and {len(theirs)} clips; pairs need the same clips")
    num_clips = len(ours)
    if num_clips < 2:
        return {"value": None, "low": None, "high": None, "n": num_clips, "p": None}
    pairs = np.array([ours, theirs], float)  # system, clip, numerator and denominator
    if clusters is not None:
        pairs = _by_cluster(pairs, clusters)
    count = pairs.shape[1]
    difference = _difference(pairs[0].sum(0), pairs[1].sum(0))
    if clusters is not None and count < MIN_CLUSTERS:
        return {"value": float(difference), "low": None, "high": None, "n": num_clips, "p": None}
    random = np.random.default_rng(seed)
    drawn = random.integers(count, size=(_RESAMPLES, count))
    resampled = _difference(pairs[0][drawn].sum(1), pairs[1][drawn].sum(1))
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(resampled, [tail, 100 - tail])
    is_exact = count <= _ENUMERATED
    swapped = (
        np.arange(2**count)[:, None] >> np.arange(count) & 1
        if is_exact
        else random.integers(2, size=(_PERMUTATIONS, count))
    )
    change = swapped @ (pairs[1] - pairs[0])
    permuted = _difference(pairs[0].sum(0) + change, pairs[1].sum(0) - change)
    extreme = int((np.abs(permuted) >= abs(difference) * (1 - 1e-9)).sum())
    p = extreme / len(permuted) if is_exact else (extreme + 1) / (len(permuted) + 1)
    return {
        "value": float(difference), "low": float(low), "high": float(high), "n": num_clips, "p": p,
    }  # fmt: skip


def _by_cluster(values: NDArray[np.float64], clusters: Sequence[Hashable]) -> NDArray[np.float64]:
    """Sums over the clips of each cluster: `systems clusters 2` of `systems clips 2`."""
    if len(clusters) != values.shape[1]:
        raise ValueError(f"{len(clusters)} clusters and {values.shape[1]} clips")
    number = {cluster: index for index, cluster in enumerate(dict.fromkeys(clusters))}
    sums = np.zeros((len(values), len(number), 2))
    for index, cluster in enumerate(clusters):
        sums[:, number[cluster]] += values[:, index]
    return sums


def _difference(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = ours[..., 0] / ours[..., 1] - theirs[..., 0] / theirs[..., 1]
    return found
