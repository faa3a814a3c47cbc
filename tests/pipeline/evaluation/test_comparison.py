"""Paired differences are significant where they should be, and worst clips come first."""

import numpy as np
import pytest
import scipy.stats

from pipeline.evaluation import intervals
from pipeline.evaluation.comparison import badness, compare
from pipeline.evaluation.findings import Findings
from tests.factories.evaluation import measure_of


def test_the_permutation_test_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=10), rng.normal(0.4, 1, size=10)
    expected = scipy.stats.permutation_test(
        (ours, theirs),
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    )
    pairs = [[(float(value), 1.0) for value in values] for values in (ours, theirs)]
    found = intervals.paired_difference(*pairs)
    assert found["value"] == pytest.approx(ours.mean() - theirs.mean())
    assert found["p"] == pytest.approx(expected.pvalue, abs=1e-12)


def test_many_clips_are_permuted_at_random_and_pairing_narrows_the_interval() -> None:
    rng = np.random.default_rng(1)
    level = rng.normal(0, 5, size=60)
    noise = rng.normal(0, 1, size=(2, 60))
    ours = [(float(v), 1.0) for v in level + noise[0] + 0.8]
    theirs = [(float(v), 1.0) for v in level + noise[1]]
    found = intervals.paired_difference(ours, theirs)
    difference = np.array(ours)[:, 0] - np.array(theirs)[:, 0]
    error = difference.std() / np.sqrt(60)
    # A tenth of the standard error is several times the noise of 2000 resamples.
    assert found["low"] == pytest.approx(difference.mean() - 1.96 * error, abs=0.15 * error)
    expected = scipy.stats.ttest_rel(*(np.array(v)[:, 0] for v in (ours, theirs))).pvalue
    assert found["p"] == pytest.approx(expected, abs=0.005)
    assert found["p"] < 0.05


def test_ratios_weigh_clips_and_equal_systems_do_not_differ() -> None:
    ours = [(1.0, 10.0), (0.0, 2.0), (3.0, 4.0)]
    same = intervals.paired_difference(ours, ours)
    assert (same["value"], same["low"], same["high"], same["p"]) == (0, 0, 0, 1)
    theirs = [(0.0, 10.0), (0.0, 2.0), (0.0, 4.0)]
    found = intervals.paired_difference(ours, theirs)
    assert found["value"] == pytest.approx(4 / 16)
    assert found["p"] == 2 / 4  # of the differing clips, all swapped or none, in both directions
    with pytest.raises(ValueError, match="3 and 1 clips"):
        intervals.paired_difference(ours, theirs[:1])
    assert intervals.paired_difference(ours[:1], ours[:1])["p"] is None


def test_rows_are_of_shared_clips_and_adjusted_for_their_number() -> None:
    clips = {f"c{n}": (float(n % 2), 1.0) for n in range(12)}
    findings = Findings(
        [measure_of(name, clips) for name in ("better", "same")]
        + [measure_of("few", dict(list(clips.items())[:3]))]
    )
    zero = dict.fromkeys([*clips, "unknown"], (1.0, 1.0))
    others = {
        ("speech", "better"): zero,
        ("speech", "same"): clips,
        ("speech", "few"): zero,
        ("speech", "not ours"): zero,
    }
    rows = {row["name"]: row for row in compare(findings, others, seed=0)}
    assert set(rows) == {"better", "same"}
    assert rows["better"]["difference"]["value"] == -0.5
    # Six clips differ: 2 of 64 ways are as extreme; of two figures it is the smaller p-value.
    assert rows["better"]["difference"]["p"] == pytest.approx(2 / 64)
    assert rows["better"]["difference"]["p_adjusted"] == pytest.approx(4 / 64)
    assert rows["same"]["difference"]["p_adjusted"] == 1


def test_the_worst_clip_is_bad_in_the_most_figures() -> None:
    findings = Findings(
        [
            measure_of("errors", {"a": (0, 1), "b": (1, 1), "c": (2, 1)}),
            measure_of("similarity", {"a": (0.9, 1), "b": (0.1, 1), "c": (0.5, 1)}, "higher"),
            measure_of("level", {"a": (99, 1), "b": (0, 1), "c": (0, 1)}, ""),
        ]
    )
    assert badness(findings) == {"a": 0, "b": 0.75, "c": 0.75}
