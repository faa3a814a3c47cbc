from __future__ import annotations

import errno
import json
import shutil
import threading
import uuid
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError

from pipeline.errors import DamagedError, DiskFullError, IncompleteError, NonFiniteError
from pipeline.storage import COMPLETE, Folder
from pipeline.training import saving
from pipeline.training.average import averaged_model
from pipeline.training.checkpoint import opened
from pipeline.training.checkpoint_store import CheckpointStore
from tests.factories.training import SMALL_MODEL, save, small_settings, training, weights_of

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


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _flip(path: Path, place: int) -> None:
    payload = bytearray(path.read_bytes())
    payload[place] ^= 0xFF
    path.write_bytes(payload)


DAMAGE = {
    "state cut short": ("state-0000.safetensors", _cut),
    "state missing": ("state-0000.safetensors", Path.unlink),
    "values altered": ("state-0000.safetensors", lambda path: _flip(path, -1)),
    "header altered": ("state-0000.safetensors", lambda path: _flip(path, 3)),
    "names altered": ("state-0000.safetensors", lambda path: _flip(path, 12)),
    "buffers altered": ("whole.safetensors", lambda path: _flip(path, -1)),
    "facts altered": ("trainer_state.json", lambda path: _flip(path, 5)),
    "facts missing": ("trainer_state.json", Path.unlink),
    "marker unreadable": (COMPLETE, lambda path: path.write_bytes(b"\xff")),
    "marker of another form": (COMPLETE, lambda path: path.write_text('{"files": [1]}')),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(
    copy, finished, small_shards, caplog, kind
):
    name, damage = DAMAGE[kind]
    damage(copy / "checkpoints" / "step_00000006" / name)
    worker = training(small_settings(checkpoint={"num_to_keep": 9}), copy, small_shards)
    assert worker.start == 4
    assert "checkpoint of step 6 is damaged" in caplog.text
    assert "step 4 takes its place" in caplog.text
    worker.run()
    assert _same(weights_of(worker), finished[1])
    assert _store(copy).steps() == [2, 4, 6]


def test_damage_of_several_falls_back_to_the_newest_good_one(copy, small_shards, caplog):
    for step, kind in ((6, "values altered"), (4, "state missing")):
        name, damage = DAMAGE[kind]
        damage(copy / "checkpoints" / f"step_{step:08d}" / name)
    assert training(small_settings(), copy, small_shards).start == 2
    assert "step 4 is damaged" in caplog.text
    assert "step 6 is damaged" in caplog.text


def test_a_run_without_any_good_checkpoint_does_not_begin_anew_in_silence(copy, small_shards):
    for step, kind in ((6, "values altered"), (4, "state missing"), (2, "state cut short")):
        name, damage = DAMAGE[kind]
        damage(copy / "checkpoints" / f"step_{step:08d}" / name)
    for _ in range(2):
        with pytest.raises(
            DamagedError, match=r"no checkpoint in .*step 2.*step 4.*step 6.*altere"
        ):
            training(small_settings(), copy, small_shards)
    assert len(list((copy / "checkpoints").iterdir())) == 3, "nothing is removed"


def test_a_marker_of_an_earlier_version_that_names_fewer_files_is_complete(copy, small_shards):
    path = copy / "checkpoints" / "step_00000006" / COMPLETE
    marker = json.loads(path.read_text())
    del marker["files"]["trainer_state.json"]
    path.write_text(json.dumps(marker))
    assert training(small_settings(), copy, small_shards).start == 6


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        ),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_full_disk_keeps_the_newest_good_checkpoint_and_says_so(
    alone, small_shards, tmp_path, monkeypatch, error
):
    worker = training(small_settings(), tmp_path, small_shards)
    original = saving.save_weights

    def save_weights(path: Path, tensors: object, **options: bool) -> None:
        if "step_00000004" in str(path):
            path.write_bytes(b"half")
            raise error
        original(path, tensors, **options)

    monkeypatch.setattr(saving, "save_weights", save_weights)
    with pytest.raises(
        DiskFullError, match=r"step 4 in .*step 2 is the newest good one.*Free some"
    ):
        worker.run()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000002"]
    monkeypatch.undo()
    assert training(small_settings(), tmp_path, small_shards).start == 2


def test_training_goes_on_while_a_checkpoint_is_written(
    alone, finished, small_shards, tmp_path, monkeypatch
):
    worker = training(small_settings(checkpoint={"num_to_keep": 9}), tmp_path, small_shards)
    is_past, lock = threading.Event(), threading.Lock()
    step, original = worker.engine.step, saving.save_weights

    def counted(number: int) -> float:
        norm = step(number)
        if number == 3:
            is_past.set()
        return norm

    def save_weights(path: Path, tensors: object, **options: bool) -> None:
        assert lock.acquire(blocking=False), "two checkpoints are written at once"
        assert is_past.wait(300), "the next steps wait for the files of step 2"
        original(path, tensors, **options)
        lock.release()

    monkeypatch.setattr(worker.engine, "step", counted)
    monkeypatch.setattr(saving, "save_weights", save_weights)
    worker.run()
    assert _store(tmp_path).steps() == [2, 4, 6]
    for number in (2, 4, 6):
        name = f"checkpoints/step_{number:08d}/state-0000.safetensors"
        assert (tmp_path / name).read_bytes() == (finished[0] / name).read_bytes()


def test_a_full_disk_ends_the_run_without_another_checkpoint(
    alone, small_shards, tmp_path, monkeypatch
):
    def save_weights(path: Path, tensors: object, **options: bool) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    endless = small_settings(optim={"num_steps": 10**6}, checkpoint={"every": 10**6})
    # One notice of eviction asks for one checkpoint.
    worker = training(endless, tmp_path, small_shards, is_preempted=lambda: True)
    monkeypatch.setattr(saving, "save_weights", save_weights)
    with pytest.raises(DiskFullError, match="there is no earlier one"):
        worker.run()


def test_a_run_that_diverges_completes_the_checkpoint_under_way(
    alone, small_shards, tmp_path, monkeypatch
):
    worker = training(small_settings(checkpoint={"every": 1}), tmp_path, small_shards)
    has_diverged, original = threading.Event(), saving.save_weights

    def diverge(number: int) -> float:
        if number == 1:
            has_diverged.set()
            raise NonFiniteError("a gradient is not finite")
        return step(number)

    def save_weights(path: Path, tensors: object, **options: bool) -> None:
        assert has_diverged.wait(300)
        original(path, tensors, **options)

    step = worker.engine.step
    monkeypatch.setattr(worker.engine, "step", diverge)
    monkeypatch.setattr(saving, "save_weights", save_weights)
    with pytest.raises(NonFiniteError):
        worker.run()
    assert _store(tmp_path).steps() == [1]


def test_a_full_disk_while_the_marker_is_written_leaves_no_marker(
    alone, small_shards, tmp_path, monkeypatch
):
    worker = training(small_settings(), tmp_path, small_shards)
    original = Folder.write_json

    def write_json(self: Folder, name: str, value: object) -> None:
        if name == COMPLETE:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(self, name, value)

    monkeypatch.setattr(Folder, "write_json", write_json)
    with pytest.raises(DiskFullError, match="there is no earlier one"):
        worker.run()
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_another_error_of_a_disk_is_left_to_a_restart(alone, small_shards, tmp_path, monkeypatch):
    def save_weights(path: Path, tensors: object, **options: bool) -> None:
        raise OSError(errno.EIO, "Input/output error")

    worker = training(small_settings(), tmp_path, small_shards)
    monkeypatch.setattr(saving, "save_weights", save_weights)
    with pytest.raises(OSError, match="Input/output"):
        worker.run()


def test_free_space_is_checked_for_the_checkpoints_that_are_still_to_come(copy, monkeypatch):
    free = SimpleNamespace(free=10_000)
    monkeypatch.setattr("shutil.disk_usage", lambda path: free)
    store = _store(copy)  # of three checkpoints
    store.check_space(10_000, num_to_keep=3)
    with pytest.raises(DiskFullError, match=r"2 checkpoints of .*lower checkpoint.num_to_keep"):
        store.check_space(10_000, num_to_keep=4)
    with pytest.raises(DiskFullError, match="1 checkpoints of"):
        store.check_space(9_000, num_to_keep=3, base_bytes=1_001)
    _store(copy / "not" / "yet").check_space(1_000, num_to_keep=9)
    remote = CheckpointStore(Folder.at("memory://nowhere/run"))
    remote.check_space(10**15, num_to_keep=9)


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
    first = training(short, uri, small_shards)
    for batch in first.feed.batches(0, 4):
        first.step(batch)
    save(first, 4)
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
