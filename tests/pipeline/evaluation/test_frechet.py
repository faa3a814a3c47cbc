"""The Fréchet distance against its closed form for known Gaussians."""

import numpy as np
import pytest
import torch

from pipeline.evaluation.frechet import frechet_distance, mel_embedding

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


def test_the_embedding_hears_colour_and_not_loudness() -> None:
    generator = torch.Generator().manual_seed(0)
    white = torch.randn(1, RATE, generator=generator)
    dull = torch.cumsum(white, -1)
    dull = dull - dull.mean()
    same = np.abs(mel_embedding(white, RATE) - mel_embedding(0.01 * white, RATE)).max()
    other = np.abs(mel_embedding(white, RATE) - mel_embedding(dull, RATE)).max()
    assert same < 1e-4
    assert other > 1
