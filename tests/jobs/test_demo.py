"""The demo is a list of ordinary commands, and the whole road holds on half a minute of audio."""

import contextlib
import json
import wave
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs import cli, demo, demo_plan
from jobs.demo_plan import (
    PROMPTS,
    Sizes,
    Step,
    next_commands,
    plan,
    plan_from_scratch,
    summary_lines,
)
from model.bundle import DEFAULT_BUNDLE
from model.bundle.bundle import load_bundle
from model.bundle.shipped import SHIPPED
from tests.factories.bundle import write_bundle

FEWER: dict[str, dict[str, Any]] = {
    "codec_tiny_cpu": {"resources": {"num_workers": 1}, "crops": {"per_step": 4}},
    "train_tiny_cpu": {"engine": {"num_workers": 1}, "feed": {"documents_per_step": 4}},
    "train_tiny_demo": {"engine": {"num_workers": 1}, "feed": {"documents_per_step": 4}},
    "prepare_tiny_cpu": {
        stage: {"resources": {"workers": 0}} for stage in ("ingest", "encode", "describe", "shard")
    },
}
"""Changes of the demo's recipes: every process imports for seconds, and several of a kind, alike
and killed, are the subject of other tests."""


@pytest.fixture
def smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, changes in FEWER.items():
        name = f"{kind}.yaml"
        recipe = yaml.safe_load((demo_plan.CONFIGS / name).read_text("utf-8"))
        for section, values in changes.items():
            recipe[section] = recipe.get(section, {}) | values
        (tmp_path / name).write_text(yaml.safe_dump(recipe), "utf-8")
    monkeypatch.setattr(demo_plan, "CONFIGS", tmp_path)


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with a shipped bundle."""
    folder = write_bundle(tmp_path / "shipped")
    monkeypatch.setitem(SHIPPED, DEFAULT_BUNDLE, (folder, load_bundle(folder).digest))
    return folder


def plans(out: Path, sizes: Sizes) -> list[Step]:
    return [*plan(out, sizes, DEFAULT_BUNDLE), *plan_from_scratch(out, sizes)]


@pytest.mark.usefixtures("bundle")
def test_every_step_is_a_command_and_every_path_lies_below_the_folder(tmp_path: Path) -> None:
    out = tmp_path / "a folder"
    for step in plans(out, Sizes(1.0, 3)):
        assert step.words[0] in cli.COMMANDS
        for word in step.words[1:]:
            if str(tmp_path) in word and "configs" not in word and "shipped" not in word:
                assert str(out) in word
    assert len(next_commands(out)) == 3


@pytest.mark.usefixtures("bundle")
def test_sound_comes_first_and_training_starts_from_the_shipped_weights(tmp_path: Path) -> None:
    steps = plan(tmp_path, Sizes(1.0, 3), DEFAULT_BUNDLE)
    first = steps[: len(PROMPTS)]
    assert [step.name for step in first] == [f"generate first {name}" for name in PROMPTS]
    assert not any(step.uses_ray for step in first)
    assert all(f"--bundle={DEFAULT_BUNDLE}" in step.words for step in first)
    assert [step.spoken for step in first] == ["nine", None, None, None]
    (train,) = (step.words for step in steps if step.name == "train")
    assert train[train.index("--init-from") + 1] == DEFAULT_BUNDLE
    before, after = (step.words for step in steps if step.words[0] == "evaluate")
    assert before[before.index("--bundle") + 1] == DEFAULT_BUNDLE
    assert after[after.index("--bundle") + 1] == str(tmp_path / "bundle")
    names = [step.name for step in steps]
    assert names.index("evaluate before") < names.index("train") < names.index("evaluate")
    assert "train-codec" not in names


@pytest.mark.parametrize(
    ("words", "digest", "first"),
    [
        ([], "shipped", "generate"),
        (["--from-scratch"], "shipped", "starter-corpus"),
        ([], "", "starter-corpus"),
    ],
)
def test_without_a_shipped_bundle_or_on_request_all_starts_from_nothing(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    digest: str,
    first: str,
) -> None:
    def stop(step: Step) -> None:
        raise ValueError(f"stopped at {step.words[0]}")

    if not digest:
        monkeypatch.setitem(SHIPPED, DEFAULT_BUNDLE, (bundle, ""))
    monkeypatch.setattr(demo, "_run", stop)
    monkeypatch.setattr("pipeline.cluster.ray_cluster", contextlib.nullcontext)
    assert demo.main(["--out", str(tmp_path / "demo"), *words]) == 1
    printed = capsys.readouterr()
    assert f"stopped at {first}" in printed.err
    assert ("comes without audiocalm-tiny" in printed.out) == (not digest)


@pytest.mark.usefixtures("bundle")
def test_training_clips_make_up_the_measured_number_and_are_counted_apart(tmp_path: Path) -> None:
    for step in plans(tmp_path, Sizes(1.0, 3)):
        assert step.words[0] != "evaluate" or "fill_from_training=true" in step.words


def summary_of(**changes: object) -> dict[str, Any]:
    losses = {"loss/flow": 1.0}
    return {
        "heard": {},
        "codec": {"loss_first": 1.0, "loss_last": 0.5, "steps": 2},
        "model": {"first": losses, "last": losses, "steps": 2},
        "hours": {"by_modality": {"music": 0.1}},
        "stages": {},
        "seconds": {},
        "evaluation": {"clips": {"music": {"test": 1, "validation": 0, "train": 3}}},
        **changes,
    }


def test_the_summary_names_clips_losses_and_the_word_that_is_heard() -> None:
    lines = summary_lines(summary_of())
    assert "evaluated music: 1 held-out clips, 3 training clips" in lines
    assert any(line.startswith("codec loss") for line in lines)
    heard = {"first speech": {"said": "seven", "heard": "seven"}}
    lines = summary_lines(summary_of(codec=None, heard=heard))
    assert "first speech says 'seven', a recogniser of digits hears 'seven'" in lines
    assert not any(line.startswith("codec loss") for line in lines)


@pytest.mark.ray
@pytest.mark.nightly
@pytest.mark.usefixtures("ray_session", "smaller")
def test_the_whole_road_from_nothing_to_samples_and_report(tmp_path: Path) -> None:
    words = ["--minutes", "0.5", "--codec-steps", "2", "--train-steps", "2"]
    out = tmp_path / "demo"
    assert demo.main(["--from-scratch", "--out", str(out), *words]) == 0

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
    assert page.count("data:audio/wav") >= 4


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.skipif(not SHIPPED[DEFAULT_BUNDLE][1], reason="this version ships no bundle")
@pytest.mark.usefixtures("ray_session", "smaller")
def test_the_whole_road_from_a_shipped_bundle(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    assert demo.main(["--out", str(out), "--minutes", "0.5", "--train-steps", "2"]) == 0
    summary = json.loads((out / "summary.json").read_text("utf-8"))
    assert summary["codec"] is None
    assert summary["model"]["steps"] == 2
    assert summary["evaluation_before"]["clips"] == summary["evaluation"]["clips"]
    assert load_bundle(out / "bundle").card["parent"]["source"] == DEFAULT_BUNDLE
    for artefact in summary["artefacts"]:
        assert (out / artefact).exists(), artefact
    for place in ("first", "samples"):
        assert {path.stem for path in (out / place).glob("*.wav")} == set(PROMPTS)
    page = (out / "report.html").read_text("utf-8")
    assert page.count("data:audio/wav") >= 8
    assert "Before training: " in page
