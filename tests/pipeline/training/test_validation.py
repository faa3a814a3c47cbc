"""Validation measures the average and leaves training alone; it decides which checkpoints stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from model.objective import losses
from pipeline.errors import SettingsError
from pipeline.storage import Folder
from pipeline.training.average import averaged_model
from pipeline.training.checkpoint_store import CheckpointStore
from pipeline.training.feed import Feed
from pipeline.training.settings import CheckpointSettings, TrainSettings
from pipeline.training.setup import model_config, open_tokenizer
from pipeline.training.shards import TrainShards
from pipeline.training.validation import (
    Validation,
    clip_losses,
    lasting_steps,
    validation_feed,
)
from tests.factories.train_shards import mixed_clips, write_shards
from tests.factories.training import save, small_settings, training, weights_of

VALIDATION = {"every": 2, "num_documents": 6}
TOTAL = "validation/loss/total"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips to train on and six held-out ones, of all modalities."""
    path = tmp_path_factory.mktemp("validation")
    write_shards(path, [*mixed_clips(12), *mixed_clips(6, split="validation")])
    return path


@pytest.fixture(scope="module")
def validated(alone: None, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps, validated every second one."""
    run = tmp_path_factory.mktemp("validated")
    training(_settings(), run, shards).run()
    return run


def _settings(**changes: Any) -> TrainSettings:
    checkpoint = {"every": 2, "num_to_keep": 9}
    return small_settings(**{"validation": VALIDATION, "checkpoint": checkpoint, **changes})


def _lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def _feed(settings: TrainSettings, shards: Path) -> Feed:
    folder, tokenizer = Folder.at(shards), open_tokenizer(settings.model)
    config = model_config(settings.model, TrainShards(folder), tokenizer)
    return validation_feed(settings, folder, None, config, tokenizer)


def _measured(settings: TrainSettings, shards: Path, run: Path, step: int) -> dict[str, float]:
    store = CheckpointStore(Folder.at(run).child("checkpoints"))
    feed = _feed(settings, shards)
    return Validation(settings, feed, torch.device("cpu")).metrics(store, step)


@pytest.mark.slow
def test_validation_changes_no_bit_of_training(validated, shards, tmp_path):
    random_state = torch.get_rng_state()
    plain = training(_settings(validation={"every": 0}), tmp_path / "plain", shards)
    plain.run()
    store = CheckpointStore(Folder.at(validated).child("checkpoints"))
    average = weights_of(plain, "average")
    for name, parameter in averaged_model(store, 6).named_parameters():
        assert torch.equal(parameter.detach().flatten(), average[name])
    kept = [{k: v for k, v in line.items() if k.startswith("loss/")} for line in _lines(validated)]
    assert kept == [
        {k: v for k, v in line.items() if k.startswith("loss/")}
        for line in _lines(tmp_path / "plain")
    ]
    torch.set_rng_state(random_state)
    _measured(_settings(), shards, validated, 6)
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.slow
def test_a_resumed_run_has_the_same_bits_and_validation_losses(validated, shards, tmp_path):
    first = training(_settings(optim={"num_steps": 6}), tmp_path, shards)
    for batch in first.feed.batches(0, 4):
        first.step(batch)
        if batch.step % 2:
            save(first, batch.step + 1)
    second = training(_settings(), tmp_path, shards)
    assert second.start == 4
    second.run()
    store = CheckpointStore(Folder.at(validated).child("checkpoints"))
    average = weights_of(second, "average")
    for name, parameter in averaged_model(store, 6).named_parameters():
        assert torch.equal(parameter.detach().flatten(), average[name])
    found = {line["step"]: line[TOTAL] for line in _lines(tmp_path) if TOTAL in line}
    assert found == {line["step"]: line[TOTAL] for line in _lines(validated) if TOTAL in line}
    assert sorted(found) == [2, 4, 6]


@pytest.mark.slow
def test_losses_are_those_of_the_held_out_documents_under_the_average(validated, shards):
    settings = _settings()
    store = CheckpointStore(Folder.at(validated).child("checkpoints"))
    model = averaged_model(store, 6)
    batch = _feed(settings, shards).batch(0)
    assert {clip[:11] for row in batch.clips for clip in row} == {"validation-"}
    with torch.no_grad():
        sums = [losses(model(part), part) for part in batch.micro_batches]
    flow = sum(float(part.flow_sum) for part in sums) / sum(float(p.flow_count) for p in sums)
    stop = sum(float(part.stop_sum) for part in sums) / sum(float(p.stop_count) for p in sums)
    line = _lines(validated)[-1]
    assert line["validation/loss/flow"] == pytest.approx(flow, rel=1e-6)
    assert line[TOTAL] == pytest.approx(flow + settings.stop_weight * stop, rel=1e-6)
    by_modality = {
        name for name in line if name.startswith("validation/loss/flow/") if "time" not in name
    }
    assert by_modality == {f"validation/loss/flow/{name}" for name in ("speech", "sound", "music")}
    assert any(name.startswith("validation/loss/flow/time_") for name in line)
    assert "loss/total" in line, "one line holds the losses of training and of validation"


@pytest.mark.slow
def test_losses_of_clips_add_up_to_the_flow_loss(validated, shards):
    # Twice as many documents as clips: every clip is drawn twice, with other noise.
    settings = _settings(validation={"every": 2, "num_documents": 12})
    store = CheckpointStore(Folder.at(validated).child("checkpoints"))
    found = clip_losses(averaged_model(store, 6), _feed(settings, shards))
    assert sorted(found) == [f"validation-{number:03d}" for number in range(6)]
    total = sum(pair[0] for pair in found.values()) / sum(pair[1] for pair in found.values())
    measured = _measured(settings, shards, validated, 6)
    assert total == pytest.approx(measured["validation/loss/flow"], rel=1e-5)


@pytest.mark.slow
def test_the_loss_of_a_checkpoint_does_not_depend_on_how_training_draws(validated, shards):
    found = _measured(_settings(), shards, validated, 4)
    assert found == _measured(_settings(), shards, validated, 4)
    others = {
        "documents_per_step": 3,
        "pack_length": 128,
        "condition_dropout": 0.9,
        "history_noise_share": 1.0,
        "uniform_time_share": 0.0,
        "flow_time_mean": 3.0,
        "modality_weights": {"sound": 1.0},
        "skip_steps": [0],
    }
    assert found == _measured(_settings(seed=7, feed=others), shards, validated, 4)
    more = _settings(validation={"every": 2, "num_documents": 12})
    assert found != _measured(more, shards, validated, 4)


@pytest.mark.slow
def test_the_best_and_every_third_checkpoint_stay(alone, shards, tmp_path, monkeypatch):
    scores = {1: 3.0, 2: 1.0, 3: 2.0, 4: 2.5, 5: float("nan"), 6: 4.0}
    logged = []
    monkeypatch.setattr(Validation, "metrics", lambda self, store, step: {TOTAL: scores[step]})
    monkeypatch.setattr(
        "pipeline.training.loop.Tracker.log_metrics",
        lambda self, metrics, step: logged.extend((step, n) for n in metrics if n == TOTAL),
    )
    keeping = {"every": 1, "num_to_keep": 1, "keep_best": 1, "keep_every": 3}
    settings = _settings(checkpoint=keeping, validation={"every": 1})
    summary = training(settings, tmp_path, shards).run()
    assert (summary["state"], summary["best_step"]) == ("finished", 2)
    store = CheckpointStore(Folder.at(tmp_path).child("checkpoints"))
    assert store.steps() == [2, 3, 6]
    assert [step for step, _ in logged] == [1, 2, 3, 4, 5, 6]
    assert TOTAL not in _lines(tmp_path)[4], "what is not finite is not logged, nor ever the best"


def test_checkpoints_that_stay() -> None:
    keeping = CheckpointSettings(every=10, num_to_keep=1, keep_every=20, keep_best=2)
    steps, scores = [10, 20, 30, 40, 50], {10: 0.5, 30: 0.4, 50: 0.4, 60: 0.1}
    assert lasting_steps(keeping, steps, scores) == {20, 40, 30, 50}
    assert lasting_steps(CheckpointSettings(), steps, scores) == set()
    assert keeping.most_at_once(100) == 1 + 1 + 2 + 5
    assert CheckpointSettings(num_to_keep=3).most_at_once(100) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation": {"every": 3}}, "validation.every 3 is no multiple of checkpoint.every 2"),
        ({"checkpoint": {"every": 2, "keep_every": 5}}, "checkpoint.keep_every 5 is no multiple"),
        (
            {"checkpoint": {"every": 2, "keep_best": 1}, "validation": {"every": 0}},
            "keep_best is 1 and validation.every is 0; set validation.every",
        ),
    ],
)
def test_settings_that_do_not_fit_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        _settings(**changes)


def test_validation_may_change_on_resume() -> None:
    assert _settings().identity() == _settings(validation={"every": 0}).identity()


def test_shards_without_held_out_clips_are_refused_before_workers_start(
    small_shards, tmp_path, monkeypatch
):
    from pipeline.training.run import train_run

    def start(*args: object, **kwargs: object) -> None:
        raise AssertionError("workers were started")

    monkeypatch.setattr("pipeline.training.driver.run_group", start)
    with pytest.raises(SettingsError, match=r"no clip in its validation split .*set validation"):
        train_run(_settings(), str(small_shards), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
