"""The demo is a list of ordinary commands, and the whole road holds on half a minute of audio."""

import json
import wave
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs import cli, demo, demo_plan
from jobs.demo_plan import PROMPTS, next_commands, plan, summary_lines

FEWER: dict[str, dict[str, Any]] = {
    "codec": {"resources": {"workers": 1}, "crops": {"per_step": 4}},
    "train": {"engine": {"num_workers": 1}, "feed": {"documents_per_step": 4}},
    "prepare": {
        stage: {"resources": {"workers": 0}} for stage in ("ingest", "encode", "describe", "shard")
    },
}
"""Changes of the demo's recipes: every process imports for seconds, and several of a kind, alike
and killed, are the subject of other tests."""


@pytest.fixture
def smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, changes in FEWER.items():
        name = f"{kind}_tiny_cpu.yaml"
        recipe = yaml.safe_load((demo_plan.CONFIGS / name).read_text("utf-8"))
        for section, values in changes.items():
            recipe[section] = recipe.get(section, {}) | values
        (tmp_path / name).write_text(yaml.safe_dump(recipe), "utf-8")
    monkeypatch.setattr(demo_plan, "CONFIGS", tmp_path)


def test_every_step_is_a_command_and_every_path_lies_below_the_folder(tmp_path: Path) -> None:
    out = tmp_path / "a folder"
    for step in plan(out, 1.0, 3):
        assert step.words[0] in cli.COMMANDS
        for word in step.words[1:]:
            if str(tmp_path) in word and "configs" not in word:
                assert str(out) in word
    assert len(next_commands(out)) == 3


def test_training_clips_make_up_the_measured_number_and_are_told_apart(tmp_path: Path) -> None:
    (measure,) = (step for step in plan(tmp_path, 1.0, 3) if step.name == "evaluate")
    assert "fill_from_training=true" in measure.words
    losses = {"loss/flow": 1.0}
    summary = {
        "codec": {"loss_first": 1.0, "loss_last": 0.5, "steps": 2},
        "model": {"first": losses, "last": losses, "steps": 2},
        "hours": {"by_modality": {"music": 0.1}},
        "stages": {},
        "seconds": {},
        "evaluation": {"clips": {"music": {"test": 1, "validation": 0, "train": 3}}},
    }
    assert "evaluated music: 1 held-out clips, 3 training clips" in summary_lines(summary)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_session", "smaller")
def test_the_whole_road_from_nothing_to_samples_and_report(tmp_path: Path) -> None:
    words = ["--minutes", "0.5", "--codec-steps", "2", "--train-steps", "2"]
    out = tmp_path / "demo"
    assert demo.main(["--out", str(out), *words]) == 0

    summary = json.loads((out / "summary.json").read_text("utf-8"))
    for stage in summary["stages"].values():
        assert stage["read"] == stage["written"] + stage["rejected"]
        assert stage["written"] > 0
    assert set(summary["hours"]["by_modality"]) == {"speech", "sound", "music"}
    assert summary["codec"]["steps"] == 2
    assert summary["model"]["steps"] == 2
    for artefact in summary["artefacts"]:
        assert (out / artefact).exists(), artefact

    for modality in PROMPTS:
        with wave.open(str(out / "samples" / f"{modality}.wav")) as sample:
            assert sample.getnframes() > 0
    page = (out / "report.html").read_text("utf-8")
    assert page.count("data:audio/wav") >= 3
