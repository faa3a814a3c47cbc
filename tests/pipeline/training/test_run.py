from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
import torch

from pipeline.errors import NonFiniteError
from pipeline.settings import Settings, save_settings
from pipeline.storage import Folder
from pipeline.training.average import averaged_model
from pipeline.training.checkpoint_store import CheckpointStore
from pipeline.training.codec.settings import TrainCodecSettings
from pipeline.training.settings import TrainSettings
from tests.factories.codec import codec_settings_values, write_clips
from tests.factories.training import small_settings, training, weights_of

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

_MARK = "AUDIOCALM_TEST_MARK"


def _tracked(path: Path, **changes: object) -> TrainSettings:
    tracking = {"is_enabled": True, "uri": f"sqlite:///{path}/mlflow.db"}
    return small_settings(tracking=tracking, **changes)


def _start(settings: Settings, run: Path, mark: str, *words: str) -> subprocess.Popen[bytes]:
    """A training job in a process group of its own, with a Ray of its own."""
    recipe = run.with_suffix(".yaml")
    recipe.write_text(save_settings(settings))
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {_MARK: mark}
    command = [sys.executable, "-m", "jobs.cli", *words, "--config", str(recipe)]
    with run.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(
            [*command, "--output", str(run)],
            env=environment,
            start_new_session=True,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _wait_until(is_true, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def _is_alive(mark: str) -> bool:
    """Whether any process of that start is left: its workers notice its death a moment later."""
    wanted = f"{_MARK}={mark}".encode()
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if wanted in entry.read_bytes() and b") Z" not in (entry.parent / "stat").read_bytes():
                return True
        except OSError:
            continue
    return False


def _client(settings: TrainSettings):
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=settings.tracking.uri)


def test_a_run_killed_midway_ends_as_if_it_was_not(ray_session, alone, small_shards, tmp_path):
    from pipeline.training.run import train_run

    changes = {
        "feed": {"documents_per_step": 24},
        # A constant rate: the rest of the run does not depend on where it was going to end.
        "optim": {"num_steps": 10**6, "warmup_steps": 2, "ema_decay": 0.9, "decay_share": 0.0},
        "checkpoint": {"every": 5},
        "log_every": 5,
    }
    run, mark = tmp_path / "killed", uuid.uuid4().hex
    store = CheckpointStore(Folder.at(run / "checkpoints"))
    endless_settings = _tracked(tmp_path, **changes)
    process = _start(endless_settings, run, mark, "train", "--shards", str(small_shards))
    try:
        _wait_until(
            lambda: store.steps() or process.poll() is not None, 400, "no checkpoint appeared"
        )
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL, run.with_suffix(".log").read_text()
    _wait_until(lambda: not _is_alive(mark), 120, "workers outlive their driver")
    interrupted_at = store.find()
    end = interrupted_at + 10
    changes["optim"] |= {"num_steps": end}
    settings = _tracked(tmp_path, **changes)

    summary = train_run(settings, str(small_shards), str(run))

    worker = training(small_settings(**changes), tmp_path / "undisturbed", small_shards)
    worker.run()
    resumed = averaged_model(store, end)
    expected = weights_of(worker, "average")
    for name, parameter in resumed.named_parameters():
        torch.testing.assert_close(parameter.detach().flatten(), expected[name], atol=1e-6, rtol=0)
    assert summary["state"] == "finished"
    runs = _client(settings).search_runs(["1"])
    assert [found.info.run_id for found in runs] == [summary["mlflow_run"]], "one MLflow run"
    assert runs[0].info.status == "FINISHED"
    logged = _client(settings).get_metric_history(summary["mlflow_run"], "loss/total")
    # What was on its way to MLflow when the process was killed is lost.
    resumed_steps = set(range(interrupted_at + 5, end + 1, 5))
    assert resumed_steps <= {metric.step for metric in logged} <= set(range(5, end + 1, 5))
    again = train_run(settings, str(small_shards), str(run))
    assert again == summary, "a finished run is left alone"


# Both share what a signal does; the other tests of this file train models, none else a codec.
@pytest.fixture(params=[pytest.param("train", marks=pytest.mark.nightly), "train-codec"])
def endless(request, small_shards, tmp_path) -> tuple[str, Settings, list[str], Path]:
    """A command without an end in sight, and the folder where its checkpoints appear."""
    run = tmp_path / "run"
    if request.param == "train":
        settings: Settings = small_settings(optim={"num_steps": 10**6}, checkpoint={"every": 50})
        return "train", settings, ["--shards", str(small_shards)], run
    values = codec_settings_values(optim={"num_steps": 10**6}, checkpoint={"every": 50})
    clips = write_clips(tmp_path)
    return "train-codec", TrainCodecSettings.model_validate(values), ["--clips", clips.uri], run


@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("number", "send"),
    [
        pytest.param(signal.SIGTERM, os.kill, id="SIGTERM"),
        # Ctrl-C goes to the whole group.
        pytest.param(signal.SIGINT, os.killpg, id="Ctrl-C", marks=pytest.mark.nightly),
    ],
)
def test_a_signal_saves_a_checkpoint_and_ends_cleanly(endless, number, send):
    job, settings, words, run = endless
    mark = uuid.uuid4().hex
    process = _start(settings, run, mark, job, *words)
    log = run.with_suffix(".log")
    try:
        _wait_until(
            lambda: len(list(run.glob("checkpoints/step*"))) or process.poll() is not None,
            800,
            "no checkpoint appeared",
        )
        send(process.pid, number)
        process.wait(400)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    said = log.read_text()
    assert process.returncode == 0, said
    assert f"{number.name}: saving a checkpoint" in said
    # On a busy machine Ray's controller logs a time-out of its own with its traceback.
    assert "Traceback" not in "".join(line for line in said.splitlines() if " pid=" not in line)
    assert "run the same command again to continue" in said
    summary = json.loads((run / "summary.json").read_text())
    newest = max(int(path.name[5:]) for path in run.glob("checkpoints/step*"))
    assert (summary["state"], summary["step"]) == ("stopped", newest)
    _wait_until(lambda: not _is_alive(mark), 120, "workers outlive their driver")


def test_a_diverging_run_of_two_workers_fails_once_and_keeps_its_checkpoint(
    ray_session, small_shards, tmp_path
):
    from pipeline.training.run import train_run

    settings = _tracked(
        tmp_path,
        engine={"num_workers": 2},
        optim={"num_steps": 6, "learning_rate": 1e30, "warmup_steps": 0},
        checkpoint={"every": 1},
    )
    with pytest.raises(NonFiniteError, match="not finite"):
        train_run(settings, str(small_shards), str(tmp_path / "run"))
    (found,) = _client(settings).search_runs(["1"])
    assert found.info.status == "FAILED"
    kept = CheckpointStore(Folder.at(tmp_path / "run" / "checkpoints")).steps()
    assert kept
    assert kept[-1] < 6
