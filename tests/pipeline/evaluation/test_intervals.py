"""Intervals against cases with a known answer: theory, and resampling written out by hand."""

import math

import numpy as np
import pytest

from pipeline.evaluation import intervals


def test_the_interval_of_a_mean_is_that_of_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, size=400)
    found = intervals.mean(values.tolist())
    error = float(values.std()) / math.sqrt(len(values))
    assert found["n"] == 400
    assert found["value"] == pytest.approx(float(values.mean()))
    # A tenth of the standard error is several times the noise of 2000 resamples.
    assert found["low"] == pytest.approx(found["value"] - 1.96 * error, abs=0.1 * error)
    assert found["high"] == pytest.approx(found["value"] + 1.96 * error, abs=0.1 * error)


def test_a_ratio_resamples_clips_and_weighs_them() -> None:
    rng = np.random.default_rng(1)
    words = rng.integers(1, 12, size=60)
    errors = rng.binomial(words, 0.3)
    found = intervals.ratio(errors.tolist(), words.tolist(), seed=5)
    draws = np.random.default_rng(9).integers(0, 60, size=(20_000, 60))
    by_hand = errors[draws].sum(1) / words[draws].sum(1)
    assert found["value"] == pytest.approx(errors.sum() / words.sum())
    assert found["low"] == pytest.approx(np.percentile(by_hand, 2.5), abs=0.006)
    assert found["high"] == pytest.approx(np.percentile(by_hand, 97.5), abs=0.006)


def test_the_same_seed_gives_the_same_interval_and_another_one_another() -> None:
    values = np.random.default_rng(2).random(30).tolist()
    assert intervals.mean(values, seed=1) == intervals.mean(values, seed=1)
    assert intervals.mean(values, seed=1) != intervals.mean(values, seed=2)


@pytest.mark.parametrize(("count", "high"), [(8, 0.3694), (200, 0.01828)])
def test_no_event_at_all_still_leaves_an_interval(count: int, high: float) -> None:
    """Clopper and Pearson: 1 - 0.025^(1/n)."""
    found = intervals.mean([False] * count)
    assert (found["value"], found["low"]) == (0.0, 0.0)
    assert found["high"] == pytest.approx(high, rel=1e-3)
    assert found["high"] == pytest.approx(1 - 0.025 ** (1 / count))
    assert intervals.mean([True] * count)["low"] == pytest.approx(1 - found["high"])


def test_too_few_clips_have_no_interval() -> None:
    assert intervals.mean([]) == {"value": None, "low": None, "high": None, "n": 0}
    assert intervals.mean([0.5]) == {"value": 0.5, "low": None, "high": None, "n": 1}


def test_counts_that_make_no_ratio_are_refused() -> None:
    with pytest.raises(ValueError, match="2 numerators and 1"):
        intervals.ratio([1, 2], [1])
    with pytest.raises(ValueError, match="a denominator is 0"):
        intervals.ratio([1, 2], [1, 0])
