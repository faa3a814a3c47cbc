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


def test_amounts_that_are_equal_in_all_clips_have_no_interval() -> None:
    """No word was repeated in 8 clips: neither certain, nor a share of clips."""
    assert intervals.mean([0.0] * 8) == {"value": 0.0, "low": None, "high": None, "n": 8}
    found = intervals.ratio([0, 0, 0], [3, 5, 2])
    assert (found["low"], found["high"]) == (None, None)
    half = intervals.ratio([1, 2, 4], [2, 4, 8])
    assert (half["value"], half["low"]) == (0.5, None)


def test_speakers_that_agree_while_their_clips_do_not_have_no_interval() -> None:
    found = intervals.ratio([True, False] * 6, [1.0] * 12, clusters=[n // 2 for n in range(12)])
    assert (found["value"], found["low"], found["high"]) == (0.5, None, None)


def test_too_few_clips_have_no_interval() -> None:
    assert intervals.mean([]) == {"value": None, "low": None, "high": None, "n": 0}
    assert intervals.mean([0.5]) == {"value": 0.5, "low": None, "high": None, "n": 1}


def test_clips_of_one_speaker_are_no_independent_evidence() -> None:
    """Ten copies of a clip say as much as the clip: the interval is that of the speakers."""
    values = np.random.default_rng(3).normal(size=30)
    copies = np.repeat(values, 10).tolist()
    speakers = np.repeat(np.arange(30), 10).tolist()
    found = intervals.ratio(copies, [1.0] * 300, clusters=speakers)
    alone = intervals.mean(values.tolist())
    assert found["n"] == 300
    for name in ("value", "low", "high"):
        assert found[name] == pytest.approx(alone[name])
    naive = intervals.mean(copies)
    assert found["high"] - found["low"] > 2.5 * (naive["high"] - naive["low"])


def test_a_paired_difference_swaps_whole_speakers() -> None:
    rng = np.random.default_rng(4)
    ours = [(float(value), 1.0) for value in rng.normal(0.5, 1, size=9)]
    theirs = [(float(value), 1.0) for value in rng.normal(size=9)]
    alone = intervals.paired_difference(ours, theirs)
    found = intervals.paired_difference(ours * 4, theirs * 4, clusters=list(range(9)) * 4)
    assert found["n"] == 36
    for name in ("value", "low", "high", "p"):
        assert found[name] == pytest.approx(alone[name])


def test_few_speakers_have_no_interval() -> None:
    clusters = [number % 4 for number in range(40)]
    pairs = [(float(number), 1.0) for number in range(40)]
    assert intervals.ratio(*zip(*pairs, strict=True), clusters=clusters)["low"] is None
    found = intervals.paired_difference(pairs, pairs[::-1], clusters=clusters)
    assert (found["low"], found["p"], found["value"]) == (None, None, 0.0)
    with pytest.raises(ValueError, match="3 clusters and 40 clips"):
        intervals.paired_difference(pairs, pairs, clusters=[1, 2, 3])


def test_counts_that_make_no_ratio_are_refused() -> None:
    with pytest.raises(ValueError, match="2 numerators and 1"):
        intervals.ratio([1, 2], [1])
    with pytest.raises(ValueError, match="a denominator is 0"):
        intervals.ratio([1, 2], [1, 0])
