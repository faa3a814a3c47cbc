"""The demo is a list of ordinary commands, and the whole road holds on half a minute of audio."""

import json
import wave
from pathlib import Path

import pytest

from jobs import cli, demo
from jobs.demo_plan import PROMPTS, next_commands, plan


def test_every_step_is_a_command_and_every_path_lies_below_the_folder(tmp_path: Path) -> None:
    out = tmp_path / "a folder"
    for step in plan(out, 1.0, 3):
        assert step.words[0] in cli.COMMANDS
        for word in step.words[1:]:
            if str(tmp_path) in word and "configs" not in word:
                assert str(out) in word
    assert len(next_commands(out)) == 3


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_the_whole_road_from_nothing_to_samples_and_report(tmp_path: Path) -> None:
    words = ["--minutes", "0.5", "--codec-steps", "6", "--train-steps", "4"]
    assert demo.main(["--out", str(tmp_path), *words]) == 0

    summary = json.loads((tmp_path / "summary.json").read_text("utf-8"))
    for stage in summary["stages"].values():
        assert stage["read"] == stage["written"] + stage["rejected"]
        assert stage["written"] > 0
    assert set(summary["hours"]["by_modality"]) == {"speech", "sound", "music"}
    assert summary["codec"]["steps"] == 6
    assert summary["model"]["steps"] == 4
    for artefact in summary["artefacts"]:
        assert (tmp_path / artefact).exists(), artefact

    for modality in PROMPTS:
        with wave.open(str(tmp_path / "samples" / f"{modality}.wav")) as sample:
            assert sample.getnframes() > 0
    page = (tmp_path / "report.html").read_text("utf-8")
    assert page.count("data:audio/wav") >= 3
