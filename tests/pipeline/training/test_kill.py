"""Forty steps are fifteen, a SIGKILL, and the other twenty-five, bit for bit."""

from __future__ import annotations

import multiprocessing
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
from tests.factories.training import process_group, small_settings, training, weights_of

pytestmark = pytest.mark.slow

_SETTINGS = {
    "optim": {"num_steps": 40, "warmup_steps": 2, "learning_rate": 1e-2, "ema_decay": 0.9},
    "checkpoint": {"every": 15, "num_to_keep": 9},
    "log_every": 10,
}
_WAITS_AT = 18


def _train_and_wait(zero_stage: int, run: Path, shards: Path, reached: Path) -> None:
    """Train until `_WAITS_AT`, say so by a file, and wait there to be killed."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with process_group(run.with_suffix(".store")):
        settings = small_settings(**_SETTINGS, engine={"zero_stage": zero_stage})
        worker = training(settings, run, shards)
        step = worker.step

        def wait_at(batch: StepBatch) -> Any:
            if batch.step == _WAITS_AT:
                reached.touch()
                signal.pause()
            return step(batch)

        worker.step = wait_at  # type: ignore[method-assign]
        worker.run()


@pytest.mark.parametrize(
    "zero_stage",
    [pytest.param(1, marks=pytest.mark.nightly), 2, pytest.param(3, marks=pytest.mark.nightly)],
)
def test_a_killed_run_ends_in_the_bits_of_an_undisturbed_one(
    alone: None, small_shards: Path, tmp_path: Path, zero_stage: int
) -> None:
    run, reached = tmp_path / "run", tmp_path / "reached"
    process = multiprocessing.get_context("spawn").Process(
        target=_train_and_wait, args=(zero_stage, run, small_shards, reached)
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
    assert CheckpointStore(Folder.at(run / "checkpoints")).steps() == [15]

    settings = small_settings(**_SETTINGS, engine={"zero_stage": zero_stage})
    resumed = training(settings, run, small_shards)
    assert resumed.start == 15
    resumed.run()
    undisturbed = training(settings, tmp_path / "undisturbed", small_shards)
    undisturbed.run()
    for kind in ("weights", "average"):
        found, expected = weights_of(resumed, kind), weights_of(undisturbed, kind)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected), kind
