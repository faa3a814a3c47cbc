"""The summary of a run is read from what the stages left, and calls no training clip held out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from pipeline.evaluation.held_out import COUNTS
from pipeline.evaluation.summary import STAGES, write_summary
from pipeline.storage import Folder

RATE = 16_000


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run in which a held-out clip and a training clip of music were measured."""
    for stage in STAGES:
        counts = {"read": 2, "written": 2, "rejected": 0, "rejected_by_reason": {}}
        Folder.at(tmp_path / "data" / stage).finish({**counts, "hours": {"by_modality": {}}})
    curve = [{"step": step, "total": 1.0 / step} for step in (1, 2)]
    losses = {"loss_first": 1.0, "loss_last": 0.5, "validation": {}}
    _write(tmp_path / "codec-training" / "metrics.json", {"curve": curve, **losses})
    _write(tmp_path / "training" / "metrics.jsonl", {"step": 1, "loss/flow": 1.0})
    counts = {**dict.fromkeys(COUNTS, 0), "described": 2, "validation": 1, "train": 1}
    results: dict[str, Any] = {
        "bundle_digest": "d" * 64,
        "settings": {"max_duration_s": 8.0},
        "clips": {"music": counts},
        "measures": [],
        "not_measured": {"spoken digits": "not installed"},
    }
    _write(tmp_path / "evaluation" / "results.json", results)
    samples = tmp_path / "evaluation" / "samples"
    samples.mkdir()
    for origin in ("validation-b", "train-a"):
        for form in ("real", "reconstructed"):
            wav = samples / f"music-{origin}-{form}.wav"
            soundfile.write(wav, np.zeros(RATE // 10), RATE)
            wav.with_suffix(".png").write_bytes(b"picture")
    return tmp_path


def _write(path: Path, values: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(values), "utf-8")


def test_held_out_clips_are_shown_where_there_are_some(run: Path) -> None:
    write_summary(run, {}, {})
    page = (run / "report.html").read_text("utf-8")
    assert page.count("<p>held-out clip</p>") == 2
    assert "music: 1 validation, 1 train" in page


def test_a_training_clip_is_called_one(run: Path) -> None:
    for path in (run / "evaluation" / "samples").glob("music-validation-*"):
        path.unlink()
    summary = write_summary(run, {}, {})
    page = (run / "report.html").read_text("utf-8")
    assert page.count("<p>training clip</p>") == 2
    assert "held-out clip" not in page
    assert summary["evaluation"]["clips"]["music"]["train"] == 1


def test_a_run_from_given_weights_has_no_codec_and_a_before(run: Path) -> None:
    (run / "codec-training" / "metrics.json").unlink()
    results = json.loads((run / "evaluation" / "results.json").read_text("utf-8"))
    _write(run / "evaluation-before" / "results.json", results)
    summary = write_summary(run, {}, {})
    page = (run / "report.html").read_text("utf-8")
    assert summary["codec"] is None
    assert summary["evaluation_before"] == results
    assert "Before training: Clips measured" in page
    assert "comes with the package" in page
    assert "Codec training" not in page


def test_the_word_that_a_recogniser_hears_is_shown(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ear:
        def __init__(self, *, single_digit: bool) -> None:
            assert single_digit

        def transcribe(self, waveform: torch.Tensor, sample_rate: int) -> str:
            assert waveform.shape == (1, RATE // 10)
            assert sample_rate == RATE
            return "nine"

    wav = run / "speech.wav"
    soundfile.write(wav, np.full(RATE // 10, 0.1), RATE)
    monkeypatch.setattr("pipeline.evaluation.summary.Recogniser", Ear)
    monkeypatch.setattr("pipeline.evaluation.summary.is_available", lambda: True)
    summary = write_summary(run, {}, {"first speech": (wav, "a word")}, {"first speech": "seven"})
    assert summary["heard"] == {"first speech": {"said": "seven", "heard": "nine"}}
    assert "Words recognised" in (run / "report.html").read_text("utf-8")
    monkeypatch.setattr("pipeline.evaluation.summary.is_available", lambda: False)
    assert write_summary(run, {}, {}, {"first speech": "seven"})["heard"] == {}
