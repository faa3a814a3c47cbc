"""Divergences against SciPy and cases worked out by hand."""

import math

import numpy as np
import pytest
import scipy.stats

from pipeline.evaluation.divergence import inception_score, kl_divergence


def test_the_divergence_is_the_relative_entropy() -> None:
    one, other = np.random.default_rng(0).dirichlet(np.ones(7), size=2)
    expected = scipy.stats.entropy(one, other)
    assert kl_divergence(one, other) == pytest.approx(expected, rel=1e-4)
    assert kl_divergence(one, one) == 0
    # p = (3/4, 1/4) against q = (1/2, 1/2): 3/4 ln(3/2) + 1/4 ln(1/2).
    by_hand = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert kl_divergence(np.array([0.75, 0.25]), np.array([0.5, 0.5])) == pytest.approx(by_hand)


def test_a_class_that_is_ruled_out_has_a_finite_divergence() -> None:
    found = kl_divergence(np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    assert found == pytest.approx(math.log(1e6), rel=1e-3)
    with pytest.raises(ValueError, match="equally many"):
        kl_divergence(np.ones(2), np.ones(3))


def test_the_score_is_the_number_of_certain_classes() -> None:
    assert inception_score(np.repeat(np.eye(5), 3, axis=0)) == pytest.approx(5)
    assert inception_score(np.full((6, 4), 0.25)) == pytest.approx(1)
    # Two clips, (1, 0) and (1/2, 1/2): mean (3/4, 1/4).
    clips = np.array([[1.0, 0.0], [0.5, 0.5]])
    terms = [math.log(4 / 3), 0.5 * math.log(2 / 3) + 0.5 * math.log(2)]
    assert inception_score(clips) == pytest.approx(math.exp(sum(terms) / 2))
    with pytest.raises(ValueError, match="no clip"):
        inception_score(np.zeros((0, 3)))
