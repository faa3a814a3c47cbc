from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.latent_distribution import latent_distribution

FRAMES, DIMS = 20_000, 6
POINT = np.full((FRAMES, DIMS), -20.0)
"""Posteriors without a width worth speaking of."""


def gaussian(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((FRAMES, DIMS))


def test_a_gaussian_is_at_no_distance() -> None:
    found = latent_distribution(3 + 2 * gaussian(), POINT)
    assert found["frames"] == FRAMES
    assert found["std"]["median"] == pytest.approx(2, rel=0.02)
    assert (found["num_dead"], found["num_inactive"]) == (0, 0)
    # Sampling errors of 20,000 frames.
    assert found["skewness"] < 0.08
    assert abs(found["excess_kurtosis"]) < 0.2
    assert found["marginal_distance"]["max"] < 0.03
    assert found["correlation_nats"] < 1e-3
    assert abs(found["radial_excess"]) < 0.03


def test_a_uniform_dimension_is_at_the_known_distance() -> None:
    values = gaussian()
    values[:, 2] = np.random.default_rng(1).uniform(-1, 1, FRAMES)
    found = latent_distribution(values, POINT)
    # Of the optimal coupling: 2 - 2 sqrt(12) E[Z Phi(Z)], with E[Z Phi(Z)] = 1 / (2 sqrt(pi)).
    expected = np.sqrt(2 - 2 * np.sqrt(3 / np.pi))
    assert found["marginal_distance"]["max"] == pytest.approx(expected, rel=0.03)
    assert found["excess_kurtosis"] == pytest.approx(-1.2, abs=0.05)


def test_an_exponential_dimension_is_skewed() -> None:
    values = gaussian()
    values[:, 0] = np.random.default_rng(1).exponential(size=FRAMES)
    found = latent_distribution(values, POINT)
    assert found["skewness"] == pytest.approx(2, rel=0.15)


def test_correlation_is_that_of_the_covariance() -> None:
    values = gaussian()
    values[:, 1] = 0.8 * values[:, 0] + 0.6 * values[:, 1]
    found = latent_distribution(values, POINT)
    assert found["correlation_nats"] == pytest.approx(-0.5 * np.log(1 - 0.8**2) / DIMS, rel=0.05)
    assert found["marginal_distance"]["max"] < 0.03
    assert abs(found["radial_excess"]) < 0.03


def test_frames_of_two_levels_show_in_the_radius() -> None:
    levels = np.where(np.arange(FRAMES) % 2, 0.5, 1.5)[:, None]
    found = latent_distribution(levels * gaussian(), POINT)
    # E[s^4] / E[s^2]^2 - 1 of the levels.
    expected = (0.5**4 + 1.5**4) / 2 / ((0.5**2 + 1.5**2) / 2) ** 2 - 1
    assert found["radial_excess"] == pytest.approx(expected, rel=0.05)


def test_dead_and_inactive_dimensions_are_counted_apart() -> None:
    values, log_std = gaussian(), POINT.copy()
    values[:, 0] = 5.0
    values[:, 1], log_std[:, 1] = 0.01 * values[:, 1], 0.0
    found = latent_distribution(values, log_std)
    assert found["num_dead"] == 1
    assert found["num_inactive"] == 2  # the dead one, and the one that is all posterior
    assert found["std"]["max"] == pytest.approx(1, rel=0.03)


def test_deviation_of_the_posterior_counts() -> None:
    found = latent_distribution(np.zeros((FRAMES, DIMS)), np.full((FRAMES, DIMS), np.log(0.5)))
    assert found["std"]["median"] == pytest.approx(0.5, rel=0.02)
    assert (found["num_dead"], found["num_inactive"]) == (0, DIMS)


def test_few_frames_give_no_covariance_and_none_is_refused() -> None:
    found = latent_distribution(gaussian()[:20], POINT[:20])
    assert found["correlation_nats"] is None
    assert found["radial_excess"] is None
    assert found["marginal_distance"]["median"] > 0
    assert latent_distribution(gaussian()[:1], POINT[:1])["skewness"] is None
    with pytest.raises(ValueError, match="at least one frame"):
        latent_distribution(gaussian()[:0], POINT[:0])
