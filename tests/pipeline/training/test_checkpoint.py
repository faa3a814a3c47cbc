from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path

import pytest
import torch

from pipeline.errors import IncompleteError
from pipeline.storage import COMPLETE, Folder
from pipeline.training.checkpoint import CheckpointStore, opened
from pipeline.training.export import averaged_model
from tests.factories.training import (
    SMALL_MODEL,
    small_settings,
    training,
    weights_of,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(alone, small_shards, tmp_path_factory):
    """An undisturbed run of six steps that kept every checkpoint."""
    path = tmp_path_factory.mktemp("finished")
    worker = training(small_settings(checkpoint={"num_to_keep": 9}), path, small_shards)
    worker.run()
    return path, weights_of(worker), weights_of(worker, "average")


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    """A copy of that run, to be damaged."""
    shutil.copytree(finished[0], tmp_path / "run")
    return tmp_path / "run"


def _store(run: Path) -> CheckpointStore:
    return CheckpointStore(Folder.at(run / "checkpoints"))


def _same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], expected[name]) for name in expected
    )


def _drop_after(run: Path, step: int) -> None:
    for path in (run / "checkpoints").glob("step_*"):
        if int(path.name.removeprefix("step_")) > step:
            shutil.rmtree(path)


@pytest.mark.parametrize("step", [2, 4])
def test_a_resumed_run_ends_in_the_same_bits(copy, finished, small_shards, step):
    _drop_after(copy, step)
    worker = training(small_settings(), copy, small_shards)
    assert worker.start == step
    summary = worker.run()
    assert _same(weights_of(worker), finished[1])
    assert _same(weights_of(worker, "average"), finished[2])
    lines = [json.loads(line) for line in (copy / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6], "each step is logged once"
    assert summary["state"] == "finished"


@pytest.mark.parametrize("zero_stage", [1, 3])
def test_a_run_goes_on_at_another_zero_stage(copy, finished, small_shards, zero_stage):
    _drop_after(copy, 4)
    worker = training(small_settings(engine={"zero_stage": zero_stage}), copy, small_shards)
    assert worker.start == 4
    worker.run()
    found = weights_of(worker)
    for name, value in finished[1].items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=0)  # order of sums


def test_a_killed_writer_leaves_nothing_that_is_chosen(copy, small_shards):
    store = _store(copy)
    (copy / "checkpoints" / "step_00000006" / COMPLETE).unlink()
    assert store.steps() == [2, 4]
    assert store.find() == 4
    worker = training(small_settings(), copy, small_shards)
    assert worker.start == 4
    assert not (copy / "checkpoints" / "step_00000006").exists(), "swept before training goes on"


def test_a_truncated_file_makes_a_checkpoint_incomplete(copy):
    path = copy / "checkpoints" / "step_00000006" / "state-0000.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert _store(copy).steps() == [2, 4]


def test_an_altered_file_is_refused_by_its_digest(copy, small_shards):
    path = copy / "checkpoints" / "step_00000006" / "state-0000.safetensors"
    payload = bytearray(path.read_bytes())
    payload[-1] ^= 1
    path.write_bytes(payload)
    with pytest.raises(IncompleteError, match="was altered"):
        averaged_model(_store(copy), 6)


def test_another_model_is_refused(copy, small_shards):
    wider = {**SMALL_MODEL, "head": {**SMALL_MODEL["head"], "hidden_dim": 32}}
    with pytest.raises(IncompleteError, match="another model"):
        training(small_settings(model={"overrides": wider}), copy, small_shards)


def test_only_the_newest_are_kept(copy):
    store = _store(copy)
    store.retain(2)
    assert store.steps() == [4, 6]
    assert not (copy / "checkpoints" / "step_00000002").exists()


def test_asking_for_a_missing_step_names_those_there(copy):
    with pytest.raises(IncompleteError, match=r"no complete checkpoint of 5.*\[2, 4, 6\]"):
        _store(copy).find(5)
    with pytest.raises(IncompleteError, match="complete are none"):
        _store(copy / "elsewhere").find()


def test_a_checkpoint_holds_safetensors_and_json_only(finished):
    names = {path.name for path in (finished[0] / "checkpoints" / "step_00000006").iterdir()}
    assert names == {
        "state-0000.safetensors", "whole.safetensors", "trainer_state.json", COMPLETE
    }  # fmt: skip


def test_parameters_are_read_whole_and_by_stretch(finished):
    path, weights, average = finished
    model = averaged_model(_store(path), 6)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.detach().flatten(), average[name])
    torch.testing.assert_close(model.latent_std, torch.full((4,), 2.0))
    with opened(_store(path), 6) as reader:
        target = torch.empty(5)
        reader.fill("weights", "latent_proj.weight", 3, target)
        assert torch.equal(target, weights["latent_proj.weight"][3:8])


def test_an_object_store_is_written_and_resumed_like_a_folder(alone, finished, small_shards):
    uri = f"memory://bucket-{uuid.uuid4().hex}/run"
    short = small_settings(checkpoint={"every": 2, "num_to_keep": 1})
    first = training(short, uri, small_shards, is_preempted=lambda: False)
    for batch in first.feed.batches(0, 4):
        first.step(batch)
    first.save(4)
    assert CheckpointStore(Folder.at(uri).child("checkpoints")).steps() == [4]
    worker = training(short, uri, small_shards)
    assert worker.start == 4
    worker.run()
    assert _same(weights_of(worker), finished[1])
    assert CheckpointStore(Folder.at(uri).child("checkpoints")).steps() == [6]


def test_frozen_parameters_travel_with_the_checkpoint(alone, small_shards, tmp_path):
    settings = small_settings(optim={"embedding_multiplier": 0.0, "num_steps": 2})
    worker = training(settings, tmp_path, small_shards)
    before = worker.engine.module.backbone.embed_tokens.weight.detach().clone()
    worker.run()
    model = averaged_model(_store(tmp_path), 2)
    assert torch.equal(model.backbone.embed_tokens.weight, before)
