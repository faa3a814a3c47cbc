"""Forty steps are fifteen, a SIGKILL, and the other twenty-five, bit for bit; so are ten kills."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.storage import Folder
from pipeline.training.checkpoint_store import CheckpointStore
from pipeline.training.feed import StepBatch
from pipeline.training.settings import TrainSettings
from tests.factories.s3 import s3_bucket, upload
from tests.factories.training import process_group, small_settings, training, weights_of

pytestmark = pytest.mark.slow

_NUM_STEPS = 40


def _settings(zero_stage: int = 2, every: int = 15) -> TrainSettings:
    optim = {"num_steps": _NUM_STEPS, "warmup_steps": 2, "learning_rate": 1e-2, "ema_decay": 0.9}
    return small_settings(
        optim=optim,
        checkpoint={"every": every, "num_to_keep": 9},
        log_every=10,
        engine={"zero_stage": zero_stage},
    )


def _train_and_wait(
    environment: dict[str, str],
    values: dict[str, Any],
    run: str,
    shards: str,
    reached: Path,
    num_steps: int,
    is_whole: bool,
) -> None:
    """Take some steps more, say so by a file, and wait there to be killed."""
    os.environ.update(environment)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with process_group(reached.with_suffix(".store")):
        worker = training(TrainSettings.model_validate(values), run, shards)
        step, waits_at = worker.step, min(worker.start + num_steps, _NUM_STEPS - 1)

        def wait_at(batch: StepBatch) -> Any:
            if batch.step == waits_at:
                if is_whole:
                    worker.saving.finish()
                reached.touch()
                signal.pause()
            return step(batch)

        worker.step = wait_at  # type: ignore[method-assign]
        worker.run()


def _train_and_kill(
    settings: TrainSettings,
    run: str,
    shards: str,
    reached: Path,
    num_steps: int,
    *,
    is_whole: bool,
) -> None:
    """Train in a process that is killed after some steps.

    Args:
        settings: Settings of the run.
        run: Run directory.
        shards: Shards.
        reached: File that says that the steps are taken.
        num_steps: Steps that it takes from where it starts.
        is_whole: Whether it waits for the checkpoint that is being written.
    """
    values = settings.model_dump(mode="json")
    # Torch and DeepSpeed are imported once, by the server that forks every process. It is older
    # than the S3 server, so the environment is passed.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.factories.training"])
    process = context.Process(
        target=_train_and_wait,
        args=(dict(os.environ), values, run, shards, reached, num_steps, is_whole),
    )
    process.start()
    try:
        while not reached.exists():
            assert process.is_alive(), "the training ended before it was killed"
            time.sleep(0.05)
    finally:
        process.kill()
        process.join()
    assert process.exitcode == -signal.SIGKILL


def _assert_ends_like_an_undisturbed_run(
    settings: TrainSettings, run: str, shards: str, start: int | None, undisturbed: Path
) -> None:
    resumed = training(settings, run, shards)
    assert start is None or resumed.start == start
    resumed.run()
    whole = training(settings, undisturbed, shards)
    whole.run()
    for kind in ("weights", "average"):
        found, expected = weights_of(resumed, kind), weights_of(whole, kind)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected), kind


@pytest.mark.parametrize(
    "zero_stage",
    [pytest.param(1, marks=pytest.mark.nightly), 2, pytest.param(3, marks=pytest.mark.nightly)],
)
def test_a_killed_run_ends_in_the_bits_of_an_undisturbed_one(
    alone: None, small_shards: Path, tmp_path: Path, zero_stage: int
) -> None:
    settings, run, shards = _settings(zero_stage), str(tmp_path / "run"), str(small_shards)
    _train_and_kill(settings, run, shards, tmp_path / "reached", 18, is_whole=True)
    assert CheckpointStore(Folder.at(run).child("checkpoints")).steps() == [15]
    _assert_ends_like_an_undisturbed_run(settings, run, shards, 15, tmp_path / "undisturbed")


def test_a_run_on_s3_ends_in_the_same_bits_after_a_kill(
    alone: None, small_shards: Path, tmp_path: Path
) -> None:
    with s3_bucket("training") as bucket:
        shards, run = upload(small_shards, f"{bucket}/shards"), f"{bucket}/run"
        settings = _settings()
        _train_and_kill(settings, run, shards, tmp_path / "reached", 18, is_whole=True)
        _assert_ends_like_an_undisturbed_run(settings, run, shards, 15, tmp_path / "undisturbed")


@pytest.mark.nightly
def test_ten_kills_at_random_steps_leave_the_bits_of_an_undisturbed_run(
    alone: None, small_shards: Path, tmp_path: Path
) -> None:
    settings, run, shards = _settings(every=3), str(tmp_path / "run"), str(small_shards)
    draw = random.Random(0)
    for number in range(10):  # some of them while a checkpoint is being written
        reached = tmp_path / f"reached-{number}"
        _train_and_kill(settings, run, shards, reached, draw.randint(0, 9), is_whole=False)
    _assert_ends_like_an_undisturbed_run(settings, run, shards, None, tmp_path / "undisturbed")
