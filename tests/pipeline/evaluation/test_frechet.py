"""Distances of sets against closed forms for known Gaussians, and sums written out."""

import numpy as np
import pytest
import torch

from pipeline.evaluation.frechet import (
    extrapolated_distance,
    frechet_distance,
    kernel_distance,
    mel_embedding,
)

RATE = 16_000


def test_equal_sets_have_no_distance() -> None:
    points = np.random.default_rng(0).normal(size=(50, 4))
    assert frechet_distance(points, points) == pytest.approx(0, abs=1e-6)


def test_a_shift_is_its_squared_length() -> None:
    points = np.random.default_rng(0).normal(size=(50, 4))
    shift = np.array([3.0, 0, 0, 4.0])
    assert frechet_distance(points + shift, points) == pytest.approx(25.0, rel=1e-6)


def test_a_scale_is_the_trace_formula() -> None:
    points = np.random.default_rng(0).normal(size=(500, 3))
    centred = points - points.mean(0)
    # For covariance C against 4 C the trace term is tr(C) (2 - 1)^2.
    expected = np.trace(np.cov(centred, rowvar=False))
    assert frechet_distance(2 * centred, centred) == pytest.approx(expected, rel=1e-2)


def test_sets_of_one_clip_or_of_other_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="at least two"):
        frechet_distance(np.zeros((1, 4)), np.zeros((5, 4)))
    with pytest.raises(ValueError, match="widths 4 and 3"):
        frechet_distance(np.zeros((5, 4)), np.zeros((5, 3)))


def test_the_extrapolated_distance_of_equal_distributions_is_nearer_to_none() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=(2, 200, 20))
    biased = frechet_distance(ours, theirs)
    assert biased > 1
    assert abs(extrapolated_distance(ours, theirs)) < 0.3 * biased
    assert extrapolated_distance(ours, theirs) == extrapolated_distance(ours, theirs)
    with pytest.raises(ValueError, match="at least four"):
        extrapolated_distance(ours[:3], theirs[:3])


def test_the_kernel_distance_is_the_unbiased_estimate() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = rng.normal(0.5, 1, size=(6, 3)), rng.normal(size=(5, 3))
    apart = [np.linalg.norm(a - b) for i, a in enumerate(theirs) for b in theirs[:i]]
    bandwidth = np.median(apart)

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.exp(-np.sum((a - b) ** 2) / (2 * bandwidth**2)))

    def within(points: np.ndarray) -> float:
        pairs = [(i, j) for i in range(len(points)) for j in range(len(points)) if i != j]
        return sum(kernel(points[i], points[j]) for i, j in pairs) / len(pairs)

    across = sum(kernel(a, b) for a in ours for b in theirs) / 30
    expected = 1000 * (within(ours) + within(theirs) - 2 * across)
    assert kernel_distance(ours, theirs) == pytest.approx(expected)


def test_the_kernel_distance_of_equal_distributions_is_none_on_average() -> None:
    rng = np.random.default_rng(2)
    found = [kernel_distance(*rng.normal(size=(2, 20, 4))) for _ in range(200)]
    # Unbiased: the mean is within four standard errors of none.
    assert abs(np.mean(found)) < 4 * np.std(found) / 200**0.5
    assert kernel_distance(rng.normal(1, 1, size=(20, 4)), rng.normal(size=(20, 4))) > 100


def test_the_embedding_hears_colour_and_not_loudness() -> None:
    generator = torch.Generator().manual_seed(0)
    white = torch.randn(1, RATE, generator=generator)
    dull = torch.cumsum(white, -1)
    dull = dull - dull.mean()
    same = np.abs(mel_embedding(white, RATE) - mel_embedding(0.01 * white, RATE)).max()
    other = np.abs(mel_embedding(white, RATE) - mel_embedding(dull, RATE)).max()
    assert same < 1e-4
    assert other > 1
