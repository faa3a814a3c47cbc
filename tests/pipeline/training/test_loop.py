from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model.optim import rate_share
from pipeline.errors import NonFiniteError, SettingsError
from pipeline.storage import Folder
from pipeline.training.hardware import checkpoint_copy_bytes
from pipeline.training.rundir import (
    STOP_REQUEST,
    change_tags,
    claim_directory,
    load_run_settings,
    load_voices,
)
from pipeline.training.shards import TrainShards
from tests.factories.train_shards import FakeClip, write_shards
from tests.factories.training import (
    reference,
    run_workers,
    save,
    small_settings,
    train_some_steps,
    training,
    weights_of,
    works_of_stages,
)

STAGES = (2, 3)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Two workers at every stage over shards of a speech and a sound clip, one document a row."""
    folder = tmp_path_factory.mktemp("pairs")
    clips = [
        FakeClip(name="words", modality="speech", transcript="one two", num_frames=30, speaker="s"),
        FakeClip(name="noise", num_frames=12),
    ]
    write_shards(folder / "shards", clips)
    settings = {
        stage: small_settings(
            feed={"documents_per_step": 2, "pack_length": 110, "modality_weights": None},
            optim={"num_steps": 3},
            engine={"num_workers": 2, "zero_stage": stage},
        )
        for stage in STAGES
    }
    values = {stage: made.model_dump(mode="json") for stage, made in settings.items()}
    places = (folder, folder / "shards")
    return folder, settings, run_workers(works_of_stages, 2, folder / "group", values, *places)


@pytest.fixture(params=STAGES)
def pair(request, pairs):
    """The shards, the run directory, the settings and the results at one stage."""
    folder, settings, results = pairs
    stage = request.param
    return folder / "shards", folder / f"run-{stage}", settings[stage], results[stage]


@pytest.mark.slow
def test_two_workers_equal_plain_torch_though_only_one_sees_speech(pair):
    shards, _, settings, result = pair
    expected, _, _ = reference(settings, shards, 2)
    counts = result["expert_positions"]
    assert all((first > 0) != (second > 0) for first, second in zip(*counts, strict=True)), (
        f"one worker of every step sees speech, the other none: {counts}"
    )
    for name, value in expected.items():
        torch.testing.assert_close(result["weights"][name], value, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_worker_copies_as_many_bytes_for_a_checkpoint_as_the_plan_says(pair, alone, tmp_path):
    shards, run, settings, _ = pair
    planned = checkpoint_copy_bytes(training(settings, tmp_path, shards).engine.num_trained, 2)
    for rank in range(2):
        written = load_file(run / f"checkpoints/step_00000002/state-{rank:04d}.safetensors")
        held = sum(tensor.nbytes for tensor in written.values())
        assert held == pytest.approx(planned, rel=0.1), "the parts of a small model differ a bit"


@pytest.mark.slow
def test_one_worker_goes_on_from_the_checkpoint_of_two(pair, alone):
    shards, run, settings, result = pair
    worker = training(settings, run, shards)
    assert worker.start == 2
    found = weights_of(worker)
    assert all(torch.equal(found[name], result["weights"][name]) for name in found)
    worker.run()
    expected, average, _ = reference(settings, shards, 3)
    for name, value in expected.items():
        torch.testing.assert_close(weights_of(worker)[name], value, atol=1e-5, rtol=0)
        torch.testing.assert_close(
            weights_of(worker, "average")[name], average[name], atol=1e-5, rtol=0
        )


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("zero_stage", STAGES)
def test_workers_may_become_one_and_two_again(alone, small_shards, tmp_path, zero_stage):
    settings = small_settings(engine={"zero_stage": zero_stage})
    places = (settings.model_dump(mode="json"), tmp_path / "run", small_shards)
    run_workers(train_some_steps, 2, tmp_path / "first", *places, (0, 2))
    train_some_steps(0, 1, *places, (2, 4))
    found = run_workers(train_some_steps, 2, tmp_path / "last", *places, (4, 6))
    expected, _, _ = reference(settings, small_shards, 6)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=0)  # order of sums


@pytest.mark.slow
def test_a_loss_that_is_not_finite_on_one_worker_stops_both_before_the_step(pair):
    result = pair[-1]
    assert all("loss of step 0 is not finite" in text for text in result["raised"])
    assert result["is_unchanged"]


@pytest.mark.slow
def test_the_message_of_a_broken_loss_names_where(alone, small_shards, tmp_path):
    worker = training(small_settings(), tmp_path, small_shards)
    batch = worker.feed.batch(0)
    batch.micro_batches[0].velocity_target[:] = float("inf")
    with pytest.raises(NonFiniteError, match=r"flow.*learning_rate") as caught:
        worker.step(batch)
    broken, *others = batch.clips
    assert all(clip in str(caught.value) for clip in broken)
    assert others, "there is a micro-batch that is fine"
    assert not any(clip in str(caught.value) for part in others for clip in part)


@pytest.mark.slow
def test_a_stop_request_saves_and_ends_and_the_next_start_goes_on(alone, small_shards, tmp_path):
    settings = small_settings(checkpoint={"every": 100})
    (tmp_path / STOP_REQUEST).write_text("please")
    stopped = training(settings, tmp_path, small_shards).run()
    assert stopped["state"] == "stopped"
    assert stopped["step"] == 1
    (tmp_path / STOP_REQUEST).unlink()
    worker = training(settings, tmp_path, small_shards)
    assert worker.start == 1
    assert worker.run()["state"] == "finished"
    assert json.loads((tmp_path / "summary.json").read_text())["step"] == 6


@pytest.mark.slow
def test_an_announced_eviction_saves_a_checkpoint_and_training_goes_on(
    alone, small_shards, tmp_path
):
    reported = []
    worker = training(
        small_settings(checkpoint={"every": 100, "num_to_keep": 9}, log_every=3),
        tmp_path,
        small_shards,
        report=lambda metrics, folder: reported.append(metrics["step"]),
        is_preempted=lambda: True,
    )
    assert worker.run()["state"] == "finished"
    assert reported == [1, 6], "one checkpoint for the notice, and the last"
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(0 <= line["time/data_wait_share"] <= 1 for line in logged)
    assert logged[0]["time/save_s"] > 0


def _claim(run: Path, shards: Path, **changes: object) -> dict[str, str]:
    return claim_directory(
        Folder.at(run), small_settings(**changes), TrainShards(Folder.at(shards))
    )


def test_a_run_directory_keeps_its_identity_and_settings(tmp_path, small_shards):
    first = _claim(tmp_path, small_shards)
    again = _claim(tmp_path, small_shards, engine={"num_workers": 3}, log_every=7)
    assert again == first
    assert load_run_settings(Folder.at(tmp_path)).engine.num_workers == 3


def test_other_settings_in_a_run_directory_are_named_and_refused(tmp_path, small_shards):
    _claim(tmp_path, small_shards)
    with pytest.raises(SettingsError, match=r"optim.weight_decay: 0.1 there, 0.5 now"):
        _claim(tmp_path, small_shards, optim={"weight_decay": 0.5, "learning_rate": 0.5})


@pytest.mark.parametrize(
    ("changes", "key", "values"),
    [
        ({"optim": {"learning_rate": 1e-3}}, "optim.learning_rate", [1e-2, 1e-3]),
        ({"optim": {"num_steps": 12}}, "optim.num_steps", [6, 12]),
        ({"optim": {"warmup_steps": 3}}, "optim.warmup_steps", [2, 3]),
        ({"optim": {"clip_norm": 0.5}}, "optim.clip_norm", [1.0, 0.5]),
        ({"optim": {"decay": "cosine"}}, "optim.decay", ["linear", "cosine"]),
        ({"feed": {"skip_steps": [4]}}, "feed.skip_steps", [[], [4]]),
    ],
)
def test_what_may_change_on_resume_is_taken_and_recorded(
    tmp_path, small_shards, caplog, changes, key, values
):
    caplog.set_level("INFO")
    first = _claim(tmp_path, small_shards)
    assert "changes" not in first
    changed = _claim(tmp_path, small_shards, **changes)
    assert changed["run_id"] == first["run_id"]
    assert changed["changes"] == [{"step": 0, "settings": {key: values}}]
    assert json.loads((tmp_path / "run.json").read_text()) == changed
    assert f"{key} changes from {values[0]} to {values[1]} at step 0" in caplog.text
    assert change_tags(changed) == {f"changed.{key}": f"{values[0]}, {values[1]} from step 0"}
    again = _claim(tmp_path, small_shards, **changes)
    assert again == changed, "the same settings again are no change"


def test_a_run_of_an_earlier_version_whose_identity_held_more_goes_on(tmp_path, small_shards):
    _claim(tmp_path, small_shards)
    claim = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(claim | {"identity": "0" * 64}))
    again = _claim(tmp_path, small_shards, optim={"learning_rate": 1e-3})
    assert again == _claim(tmp_path, small_shards, optim={"learning_rate": 1e-3})
    (tmp_path / "run.json").write_text(json.dumps(claim | {"identity": "0" * 64}))
    with pytest.raises(SettingsError, match="seed: 0 there, 5 now"):
        _claim(tmp_path, small_shards, seed=5)


@pytest.mark.slow
def test_a_longer_run_with_another_rate_goes_on_by_the_new_schedule(alone, small_shards, tmp_path):
    _claim(tmp_path, small_shards)
    training(small_settings(), tmp_path, small_shards).run()
    with pytest.raises(SettingsError, match=r"num_steps is 4 and .* reached step 6; give at least"):
        _claim(tmp_path, small_shards, optim={"num_steps": 4})
    longer = {"optim": {"num_steps": 8, "learning_rate": 2e-3, "clip_norm": 0.5}}
    claim = _claim(tmp_path, small_shards, **longer)
    assert claim["changes"][0]["step"] == 6
    worker = training(small_settings(**longer), tmp_path, small_shards)
    assert worker.start == 6
    assert worker.run()["state"] == "finished"
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rates = {line["step"]: line["rate/learning_rate"] for line in lines}
    schedule = small_settings(**longer).optim
    assert rates[7] == pytest.approx(2e-3 * rate_share(6, schedule))
    assert rates[8] == pytest.approx(2e-3 * rate_share(7, schedule))
    assert rates[8] < rates[7]


@pytest.mark.slow
def test_skipped_steps_change_nothing_and_the_count_of_updates_survives_a_resume(
    alone, small_shards, tmp_path
):
    settings = small_settings(feed={"skip_steps": [1, 5]}, checkpoint={"num_to_keep": 9})
    whole = training(settings, tmp_path / "whole", small_shards)
    read = []
    original = whole.feed.rows
    whole.feed.rows = lambda step: read.append(step) or original(step)
    assert whole.run()["step"] == 6
    assert sorted(read) == [0, 2, 3, 4], "the clips of a skipped step are not even read"
    lines = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 3, 4, 5]

    stopped = training(settings, tmp_path / "two", small_shards)
    for batch in stopped.feed.batches(0, 4):
        if not batch.is_skipped:
            stopped.step(batch)
    save(stopped, 4)
    resumed = training(settings, tmp_path / "two", small_shards)
    assert resumed.start == 4
    resumed.run()
    expected, found = weights_of(whole), weights_of(resumed)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.slow
def test_a_broken_gradient_names_step_clips_and_what_may_be_changed(
    alone, small_shards, tmp_path, caplog
):
    worker = training(small_settings(optim={"clip_norm": 0.0}), tmp_path, small_shards)
    batch = worker.feed.batch(0)
    worker.engine.module.latent_proj.weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(NonFiniteError) as caught:
        worker.step(batch)
    message = str(caught.value)
    assert "gradient is not finite at step 0" in message
    assert "feed.skip_steps=[0]" in message
    assert "optim.clip_norm" in message
    for clip in (clip for part in batch.clips for clip in part):
        assert clip in message
        assert clip in caplog.text


def test_other_shards_in_a_run_directory_are_refused(tmp_path, small_shards):
    _claim(tmp_path / "run", small_shards)
    write_shards(tmp_path / "other", [FakeClip(name="a")], card={"note": "other"})
    with pytest.raises(SettingsError, match=r"started with shards .* --shards now gives"):
        _claim(tmp_path / "run", tmp_path / "other")


def test_the_voices_of_the_shards_are_kept_for_the_bundle(tmp_path, small_shards):
    _claim(tmp_path, small_shards)
    voices = load_voices(Folder.at(tmp_path))
    assert set(voices) == {"corpus-0", "corpus-1"}
    for voice in voices.values():
        assert float(voice.embedding.norm()) == pytest.approx(1.0, abs=1e-6)
