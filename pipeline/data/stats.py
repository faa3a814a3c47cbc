"""Mean and standard deviation of latents, modalities weighing the same, by exact merging of sums.

Training normalises latents with them. They are of what training draws: posterior samples, whose
variance is that of the means plus the mean posterior variance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_STD = 1e-3
"""Floor of a standard deviation: a constant dimension is not amplified."""


@dataclass
class LatentSums:
    """Sums over the latents of one modality in one unit.

    Attributes:
        num_frames: Frames added.
        total: Sum of the posterior means, per dimension.
        total_square: Sum of their squares plus the posterior variances, per dimension.
    """

    num_frames: int = 0
    total: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    total_square: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def add(self, mean: NDArray[np.generic], log_std: NDArray[np.generic]) -> None:
        """Add one clip of `frames latent_dim`."""
        values = mean.astype(np.float64)
        squares = values**2 + np.exp(2 * log_std.astype(np.float64))
        if not self.num_frames:
            self.total = np.zeros(values.shape[1])
            self.total_square = np.zeros(values.shape[1])
        self.num_frames += len(values)
        self.total = self.total + values.sum(axis=0)
        self.total_square = self.total_square + squares.sum(axis=0)

    def to_json(self) -> dict[str, Any]:
        """The sums as JSON values, exact to the last bit."""
        return {
            "num_frames": self.num_frames,
            "total": self.total.tolist(),
            "total_square": self.total_square.tolist(),
        }


def latent_statistics(units: Sequence[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Statistics out of the sums of all units, by modality.

    The sums are added exactly, so the result does not depend on how clips were split into units
    beyond the rounding inside a unit.

    Args:
        units: For each unit, `LatentSums.to_json` by modality.

    Returns:
        `mean` and `std` per dimension, every modality weighing the same however many frames it
        has; `frames` by modality; `num_dead`, the dimensions whose deviation was raised to the
        floor.

    Raises:
        ValueError: If there is no frame at all.
    """
    by_modality: dict[str, list[dict[str, Any]]] = {}
    for unit in units:
        for modality, sums in unit.items():
            by_modality.setdefault(modality, []).append(sums)
    frames = {m: sum(s["num_frames"] for s in sums) for m, sums in sorted(by_modality.items())}
    frames = {modality: count for modality, count in frames.items() if count}
    if not frames:
        raise ValueError("no latents to take statistics of: no clip reached the train split")
    means, squares = [], []
    for modality, count in frames.items():
        means.append(_add_exactly(s["total"] for s in by_modality[modality]) / count)
        squares.append(_add_exactly(s["total_square"] for s in by_modality[modality]) / count)
    mean = np.mean(means, axis=0)
    std = np.sqrt(np.maximum(np.mean(squares, axis=0) - mean**2, 0.0))
    return {
        "mean": mean.tolist(),
        "std": np.maximum(std, MIN_STD).tolist(),
        "frames": frames,
        "num_dead": int((std < MIN_STD).sum()),
    }


def _add_exactly(rows: Iterable[list[float]]) -> NDArray[np.float64]:
    return np.array([math.fsum(column) for column in zip(*rows, strict=True)])
