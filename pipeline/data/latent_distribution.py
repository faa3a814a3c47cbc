"""Distance of a codec's latents from a Gaussian, which a flow from noise to them has to bridge.

Measured on standardised samples of the posterior, as training draws them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from pipeline.data.shards import read_npy
from pipeline.data.stats import MIN_STD
from pipeline.storage import Folder

MAX_CLIPS = 256
FRAMES_PER_CLIP = 32
INACTIVE_SHARE = 0.01
"""Share of a dimension's variance that comes from the clip, below which it is called inactive."""
_COLUMNS = ["shard", "num_frames"] + [
    f"{name}_{what}" for name in ("mean", "log_std") for what in ("offset", "size")
]


def latent_distribution(
    mean: NDArray[np.generic], log_std: NDArray[np.generic], seed: int = 0
) -> dict[str, Any]:
    """Variance, dead dimensions and distance from a Gaussian of posteriors.

    Args:
        mean: Posterior means, `frames latent_dim`.
        log_std: Natural logarithms of the posterior deviations, of the same shape.
        seed: Seeds the draw from the posteriors.

    Returns:
        `frames`; `std` (smallest, median and largest over dimensions); `num_dead`, whose
        deviation is below the floor of normalisation; `num_inactive`, whose means hardly vary
        beside the posterior's own noise. Over the other dimensions: `skewness` and
        `excess_kurtosis` (the largest by magnitude), `marginal_distance` (median and largest
        2-Wasserstein distance of a standardised dimension from the normal distribution; 0.21 is
        that of a uniform one), `correlation_nats` (divergence a dimension of the Gaussian of the
        same covariance from one of independent dimensions), and `radial_excess` (Mardia's
        kurtosis over that of a Gaussian, less one: positive where quiet and busy frames mix).
        Values that too few frames cannot give are None.

    Raises:
        ValueError: If there are no frames, or the shapes differ.

    Source:
        Mardia, Biometrika 57, 1970; active units after Burda et al., arXiv:1509.00519, 5.2.
    """
    means, deviations = mean.astype(np.float64), np.exp(log_std.astype(np.float64))
    if means.shape != deviations.shape or means.ndim != 2 or not len(means):
        raise ValueError(
            f"means of shape {means.shape} and deviations of {deviations.shape}; "
            "give at least one frame of each"
        )
    noise = np.random.default_rng(seed).standard_normal(means.shape)
    samples = means + deviations * noise
    std = samples.std(axis=0)
    noise_power = (deviations**2).mean(axis=0)
    is_dead = std < MIN_STD
    of_clip = means.var(axis=0) / np.maximum(means.var(axis=0) + noise_power, MIN_STD**2)
    alive = samples[:, ~is_dead]
    facts: dict[str, Any] = {
        "frames": len(samples),
        "std": _spread(std),
        "num_dead": int(is_dead.sum()),
        "num_inactive": int((of_clip < INACTIVE_SHARE).sum()),
    }
    return facts | _shape((alive - alive.mean(axis=0)) / alive.std(axis=0))


def stored_distribution(latents: Folder, names: list[str]) -> dict[str, Any] | None:
    """`latent_distribution` of frames spread evenly over the clips of a `latents/` directory.

    Reads at most `MAX_CLIPS` clips, whatever the size of the corpus; None without any clip.

    Args:
        latents: The directory; its card may be missing.
        names: Names of its index tables.
    """
    if not names:
        return None
    rows = list(_evenly(latents, names, MAX_CLIPS))
    drawn: dict[str, list[NDArray[np.generic]]] = {"mean": [], "log_std": []}
    for row in rows:
        for name, parts in drawn.items():
            payload = latents.read_range(
                f"shards/{row['shard']}.tar", row[f"{name}_offset"], row[f"{name}_size"]
            )
            frames = read_npy(payload, name)
            index = np.linspace(0, len(frames) - 1, min(len(frames), FRAMES_PER_CLIP))
            parts.append(frames[index.round().astype(int)])
    if not drawn["mean"]:
        return None
    return latent_distribution(np.concatenate(drawn["mean"]), np.concatenate(drawn["log_std"]))


def _shape(standardised: NDArray[np.float64]) -> dict[str, Any]:
    num_frames, num_dims = standardised.shape
    names = ("skewness", "excess_kurtosis", "marginal_distance", "correlation_nats")
    facts: dict[str, Any] = dict.fromkeys((*names, "radial_excess"))
    if not num_dims or num_frames < 2:
        return facts
    normal = ndtri((np.arange(num_frames) + 0.5) / num_frames)[:, None]
    distance = np.sqrt(((np.sort(standardised, axis=0) - normal) ** 2).mean(axis=0))
    facts["skewness"] = float(np.abs((standardised**3).mean(axis=0)).max())
    kurtosis = (standardised**4).mean(axis=0) - 3
    facts["excess_kurtosis"] = float(kurtosis[np.abs(kurtosis).argmax()])
    facts["marginal_distance"] = _spread(distance)
    # Covariances of few frames look dependent by themselves.
    if num_frames >= 10 * num_dims:
        correlation = standardised.T @ standardised / num_frames
        eigenvalues, axes = np.linalg.eigh(correlation)
        eigenvalues = np.maximum(eigenvalues, 1e-9)
        facts["correlation_nats"] = float(-0.5 * np.log(eigenvalues).sum() / num_dims)
        squared_radius = ((standardised @ axes) ** 2 / eigenvalues).sum(axis=1)
        expected = num_dims * (num_dims + 2)
        facts["radial_excess"] = float((squared_radius**2).mean() / expected - 1)
    return facts


def _spread(values: NDArray[np.float64]) -> dict[str, float]:
    return {
        "min": float(values.min()),
        "median": float(np.median(values)),
        "max": float(values.max()),
    }


def _evenly(latents: Folder, names: list[str], count: int) -> Iterator[dict[str, Any]]:
    """At most `count` rows spread evenly over index tables, of which one is held at a time."""
    sizes = [latents.read_table(name, ["num_frames"]).num_rows for name in names]
    total = sum(sizes)
    chosen = np.linspace(0, total - 1, min(count, total)).round().astype(int)
    first = 0
    for name, size in zip(names, sizes, strict=True):
        here = chosen[(chosen >= first) & (chosen < first + size)] - first
        if len(here):
            yield from latents.read_table(name, _COLUMNS).take(here).to_pylist()
        first += size
