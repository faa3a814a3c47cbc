"""Tables show figures of enough clips, say why others are missing, and how to read each once."""

from typing import Any

import numpy as np

from pipeline.evaluation.findings import Findings, Measure, resampled_clusters
from pipeline.evaluation.tables import further_tables, overview_tables

CLIPS = [f"c{number}" for number in range(12)]
SPEAKERS = {clip: f"speaker {number % 6}" for number, clip in enumerate(CLIPS)}


def _results(findings: Findings, clusters: dict[str, str] | None = None) -> dict[str, Any]:
    count = dict.fromkeys(
        ("described", "test", "validation", "train", "in_training", "too_long", "too_short",
         "not_needed"), 0,
    )  # fmt: skip
    return {
        "bundle": "b",
        "bundle_digest": "d" * 64,
        "settings": {"max_duration_s": 8.0},
        "clips": {"speech": count | {"described": 12, "test": 12}},
        "measures": [measure.figures(0, clusters) for measure in findings.measures],
    }


def _findings() -> Findings:
    found, random = Findings(), np.random.default_rng(0)
    for group, clips in (("all", CLIPS), ("corpus a", CLIPS[:3]), ("corpus b", CLIPS[:3])):
        for kind in ("word", "character"):
            values = {clip: (float(random.random()), 1.0) for clip in clips}
            name = f"{kind} error rate, {group}"
            found.measures.append(
                Measure("speech", name, "lower", {"generated": values}, "Whisper")
            )
    return found


def test_figures_of_few_clips_have_a_reason_in_place_of_a_row_of_dashes() -> None:
    results = _results(_findings())
    measures = overview_tables(results)[-1]
    assert [row[0] for row in measures.rows] == [
        "word error rate, all",
        "character error rate, all",
    ]
    missing = next(t for t in further_tables(results) if t.title == "Not measured")
    reason = "3 clips each; 5 are needed: raise per_modality, per_corpus or num_digits"
    assert list(missing.rows) == [
        ("speech: word error rate (corpus a, corpus b)", reason),
        ("speech: character error rate (corpus a, corpus b)", reason),
    ]


def test_a_note_stands_once_for_all_figures_that_it_is_of() -> None:
    measures = overview_tables(_results(_findings()))[-1]
    assert measures.remarks == ["word error rate, character error rate: Whisper."]


def test_clips_of_a_speaker_are_resampled_together_and_counted() -> None:
    results = _results(_findings(), SPEAKERS)
    measures = overview_tables(results)[-1]
    assert measures.rows[0][1] == "12 of 6"
    assert overview_tables(_results(_findings()))[-1].rows[0][1] == "12"


def test_speakers_are_resampled_only_where_they_are_enough_and_have_several_clips() -> None:
    assert resampled_clusters(CLIPS, SPEAKERS) == list(SPEAKERS.values())
    assert resampled_clusters(CLIPS, dict.fromkeys(CLIPS, "one")) is None
    assert resampled_clusters(CLIPS[:6], SPEAKERS) is None, "every clip has a speaker of its own"
    assert resampled_clusters(CLIPS, None) is None


def test_a_share_of_no_clip_has_an_exact_interval_and_an_amount_has_none() -> None:
    found = Findings()
    found.add("speech", "clips that end early", "lower", {"generated": dict.fromkeys(CLIPS, False)})
    found.add("speech", "clipped samples", "lower", {"generated": dict.fromkeys(CLIPS, 0.0)})
    rows = overview_tables(_results(found))[-1].rows
    assert rows[0][4] == "0 [0,\u00a00.265]"
    assert rows[1][4] == "0"
