"""A study shows the differences that were put into it, and no more than its seeds allow."""

from typing import Any

import numpy as np
import pytest
import scipy.stats

from pipeline.evaluation.study import COMPUTE, EXPOSURE, study_results, study_tables

CLIPS = {
    f"{modality}-{number}": {"modality": modality, "cluster": f"{modality}/{number // 2}"}
    for modality in ("speech", "sound", "music")
    for number in range(24)
}
EVERY = {"speech": 1 / 3, "sound": 1 / 3, "music": 1 / 3}


def _run(
    arm: str,
    seed: int,
    shares: dict[str, float],
    *,
    change: float = 0.0,
    of_seed: float = 0.0,
    early: float = 0.0,
) -> dict[str, Any]:
    """A measured run of 60 steps, whose loss is 1 and `change`, plus `early` at step 20; clips and
    seeds add their own part, that of the clip being the same in every run."""
    level = np.random.default_rng(0).normal(1, 0.3, size=len(CLIPS))
    noise = np.random.default_rng([seed, len(arm)])
    shift = of_seed * noise.normal()
    losses = {}
    for step, more in ((20, early), (60, 0.0)):
        values = level + change + more + shift + 0.01 * noise.normal(size=len(CLIPS))
        losses[str(step)] = {
            clip: (float(value) * 10, 10.0) for clip, value in zip(CLIPS, values, strict=True)
        }
    matched = {name: 60 if len(shares) == 3 else 20 for name in shares}
    return {
        "arm": arm, "seed": seed, "steps": 60, "seconds": 90.0, "flops": 2e12,
        "num_parameters": 1000, "shares": shares, "matched_steps": matched, "losses": losses,
    }  # fmt: skip


def _study(num_seeds: int = 3, **kwargs: float) -> dict[str, Any]:
    runs = []
    for seed in range(num_seeds):
        runs.append(_run("joint", seed, EVERY))
        runs.append(_run("speech-only", seed, {"speech": 1.0}, **kwargs))
    return study_results(runs, CLIPS, "joint")


def _row(results: dict[str, Any], point: str) -> dict[str, Any]:
    (row,) = [row for row in results["differences"] if row["point"] == point]
    return row


def test_a_difference_of_every_clip_and_seed_is_shown_at_the_right_point() -> None:
    results = _study(change=-0.1, early=0.3)
    end, exposed = _row(results, COMPUTE), _row(results, EXPOSURE)
    assert end["over_clips"]["value"] == pytest.approx(-0.1, abs=0.01)
    assert end["over_clips"]["low"] < -0.1 < end["over_clips"]["high"] < 0
    assert exposed["over_clips"]["value"] == pytest.approx(0.2, abs=0.01)
    verdicts = {
        table.title.rpartition(", ")[2]: table.rows[0][-1]
        for table in study_tables(results)
        if table.title.startswith("Differences")
    }
    assert verdicts == {COMPUTE: "better", EXPOSURE: "worse"}


def test_the_interval_over_seeds_is_that_of_a_t_test() -> None:
    row = _row(_study(change=0.02, of_seed=0.05), COMPUTE)
    found = row["over_seeds"]
    test = scipy.stats.ttest_1samp(found["by_seed"], 0)
    assert found["p"] == pytest.approx(test.pvalue)
    half = scipy.stats.t.ppf(0.975, 2) * np.std(found["by_seed"], ddof=1) / np.sqrt(3)
    assert found["high"] - found["value"] == pytest.approx(half)
    assert row["p"] == max(found["p"], row["over_clips"]["p"])


def test_seeds_that_disagree_show_nothing_however_many_clips_there_are() -> None:
    results = _study(change=0.02, of_seed=0.2)
    row = _row(results, COMPUTE)
    assert row["over_seeds"]["low"] < 0 < row["over_seeds"]["high"]
    assert "not shown to differ" in [table.rows[0][-1] for table in study_tables(results)]


def test_two_seeds_give_values_and_no_verdict() -> None:
    results = _study(num_seeds=2, change=-0.5)
    row = _row(results, COMPUTE)
    assert (row["p"], row["over_seeds"]["low"], row["seeds"]) == (None, None, 2)
    table = next(t for t in study_tables(results) if t.title.startswith("Differences"))
    assert table.rows[0][-1] == "too few seeds or clips"


def test_an_arm_has_figures_of_what_it_was_trained_on_and_of_its_own_seeds() -> None:
    runs = [_run("joint", 0, EVERY), _run("joint", 1, EVERY), _run("music-only", 0, {"music": 1})]
    results = study_results(runs, CLIPS, "joint")
    assert {row["modality"] for row in results["losses"] if row["arm"] == "music-only"} == {"music"}
    assert {row["seeds"] for row in results["differences"]} == {1}
    losses = next(t for t in study_tables(results) if t.title == f"Held-out flow loss, {COMPUTE}")
    only = dict(zip(losses.columns, losses.rows[1], strict=True))
    assert only["arm"] == "music-only"
    assert only["speech"] is None
    assert "24 clips" in only["music"]


def test_resampling_is_over_speakers() -> None:
    by_speaker = {name: {**facts, "cluster": facts["modality"]} for name, facts in CLIPS.items()}
    runs = [_run("joint", 0, EVERY)]
    (loss, *_) = study_results(runs, by_speaker, "joint")["losses"]
    assert loss["loss"]["low"] is None, "one speaker gives no interval"
    (loss, *_) = study_results(runs, CLIPS, "joint")["losses"]
    assert loss["loss"]["low"] < loss["loss"]["value"] < loss["loss"]["high"]
