"""A study gives its arms equal compute, measures each run once, and continues where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import pipeline.training.study
from pipeline.errors import SettingsError
from pipeline.storage import Folder
from pipeline.training.study import StudySettings, clip_facts, run_study, study_arms
from tests.factories.train_shards import mixed_clips, write_shards
from tests.factories.training import SMALL_MODEL, small_settings, training

ALL = {"speech": 1, "sound": 1, "music": 1}
ARMS: dict[str, dict[str, Any]] = {
    "without": {"model": {"overrides": {"expert": {"placement": "none"}}}},
    "joint": {},
    "music": {"feed": {"modality_weights": {"speech": 0, "sound": 0}}},
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Clips to train on, and three held-out ones of each modality in both splits."""
    held_out = [*mixed_clips(9, split="validation"), *mixed_clips(9, split="test")]
    path = tmp_path_factory.mktemp("study")
    write_shards(path, [*mixed_clips(12), *held_out])
    return Folder.at(path)


def _settings(**changes: Any) -> StudySettings:
    train = small_settings(
        model={"overrides": SMALL_MODEL},
        feed={"modality_weights": ALL, "documents_per_step": 6},
        optim={"num_steps": 6},
    )
    given = {"train": train.model_dump(mode="json"), "arms": ARMS, "seeds": (0, 1)}
    return StudySettings.model_validate({**given, "num_held_out": 9, **changes})


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs that are trained; the loop runs in this process, without Ray."""
    names: list[str] = []

    def train(settings: Any, source: str, run: str) -> dict[str, Any]:
        names.append(Path(run).name)
        return training(settings, Path(run), Path(source)).run()

    monkeypatch.setattr(pipeline.training.study, "train_run", train)
    return names


def test_arms_get_the_operations_of_the_reference(shards: Folder) -> None:
    settings = _settings()
    joint, without, music = study_arms(
        settings.model_copy(update={"train": small_settings(
            feed={"modality_weights": ALL, "documents_per_step": 6}, optim={"num_steps": 600},
            checkpoint={"every": 450}, validation={"every": 450},
        )}),
        shards,
    )  # fmt: skip
    assert (joint.name, without.name, music.name) == ("joint", "without", "music")
    assert joint.settings.optim.num_steps == 600
    budget = joint.flops * 600
    for arm in (without, music):
        assert arm.flops * arm.settings.optim.num_steps == pytest.approx(budget, rel=2e-3)
    assert without.settings.optim.num_steps > 600, "a model without expert computes less a step"
    assert music.shares == {"music": 1.0}
    assert music.matched_steps == {"music": 200}
    assert music.settings.checkpoint.every == 200, "there is a checkpoint at that step"
    assert joint.matched_steps == {"speech": 600, "sound": 600, "music": 600}


@pytest.mark.slow
def test_every_run_is_measured_once_and_an_interrupted_study_continues(
    alone: None, shards: Folder, trained: list[str], tmp_path: Path
) -> None:
    output = Folder.at(tmp_path)
    first = next(run_study(_settings(), shards, output))
    assert trained == ["joint-0"]
    runs = list(run_study(_settings(), shards, output))
    assert trained == ["joint-0", "without-0", "music-0", "joint-1", "without-1", "music-1"]
    assert runs[0] == first
    again = list(run_study(_settings(), shards, output))
    assert len(trained) == 6
    assert again == runs
    facts = clip_facts(shards)
    assert facts["test-003"] == {"modality": "speech", "cluster": "corpus/1"}
    for run in runs:
        # The last step, and that at which music alone had seen as much as the joint model.
        assert set(run["losses"]) == {str(run["steps"]), *map(str, run["matched_steps"].values())}
        for losses in run["losses"].values():
            assert set(losses) == set(facts), "every held-out clip of both splits"
    counts = [
        {clip: pair[1] for clip, pair in run["losses"][str(run["steps"])].items()} for run in runs
    ]
    assert all(count == counts[0] for count in counts), "the same frames in every run"
    with pytest.raises(SettingsError, match="measured with other settings or shards"):
        next(run_study(_settings(num_held_out=6), shards, output))


def test_a_stopped_run_ends_the_study(
    shards: Folder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stopped = {"state": "stopped"}
    monkeypatch.setattr(pipeline.training.study, "train_run", lambda *given: stopped)
    with pytest.raises(KeyboardInterrupt):
        next(run_study(_settings(), shards, Folder.at(tmp_path)))


def test_arms_with_mistakes_are_named(shards: Folder) -> None:
    with pytest.raises(SettingsError, match=r"arm 'joint': unknown setting 'feed\.modality"):
        study_arms(_settings(arms={"joint": {"feed": {"modality": {}}}}), shards)
    with pytest.raises(SettingsError, match="arms is empty"):
        study_arms(_settings(arms={}), shards)
    with pytest.raises(ValueError, match="reference 'none' is none of the arms"):
        _settings(reference="none")
