"""When a run saves, whether it stops, and what becomes of the checkpoint under way."""

from __future__ import annotations

import errno
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline.errors import DiskFullError, NonFiniteError
from pipeline.storage import Folder
from pipeline.training import saving
from pipeline.training.place import Place
from pipeline.training.rundir import STOP_REQUEST
from pipeline.training.saving import Saving
from pipeline.training.settings import SaveSettings


class Situation:
    """A run of 1,000 steps whose clock and notices a test sets.

    Attributes:
        now_s: Time.
        is_preempted: Whether an eviction is announced.
        num_looks: How often the run looked for one.
        completed: Steps of the checkpoints that were completed.
        reported: Steps of the checkpoints that were reported.
    """

    def __init__(self, run: Path, **settings: Any) -> None:
        self.now_s = 1000.0
        self.is_preempted = False
        self.num_looks = 0
        self.completed: list[int] = []
        self.reported: list[int] = []
        self.weights = torch.zeros(3)
        place = Place(report=self._report, is_preempted=self._looked)
        self.saving = Saving(
            Folder.at(run),
            place,
            SaveSettings(**{"every": 10**6, **settings}),
            1000,
            contents=lambda: ({"a.safetensors": {"w": self.weights.clone()}}, {"note": "x"}),
            completed=self.completed.append,
            clock=lambda: self.now_s,
        )

    def saves(self, step: int) -> bool:
        """Whether the checkpoint of this step is written."""
        self.saving.after_step(step)
        self.saving.finish()
        return self.completed[-1:] == [step]

    def _looked(self) -> bool:
        self.num_looks += 1
        return self.is_preempted

    def _report(self, metrics: dict[str, Any], folder: Folder) -> None:
        self.reported.append(metrics["step"])


def test_a_checkpoint_is_due_at_its_interval_and_at_the_last_step(tmp_path: Path) -> None:
    now = Situation(tmp_path, every=3)
    assert [step for step in (1, 2, 3, 4, 6, 999, 1000) if now.saves(step)] == [3, 6, 999, 1000]
    assert now.reported == now.completed
    assert now.saving.store.steps() == now.completed
    assert now.saving.store.state(6) == {"note": "x", "step": 6}


def test_a_checkpoint_is_due_by_the_clock_since_the_last_one(tmp_path: Path) -> None:
    now = Situation(tmp_path, every_minutes=2)
    now.now_s += 119
    assert not now.saves(1)
    now.now_s += 1
    assert now.saves(2)
    assert not now.saves(3)
    now.now_s += 120
    assert now.saves(4)
    never = Situation(tmp_path / "never")
    never.now_s += 1e6
    assert not never.saves(1), "without minutes the clock never asks"


def test_a_notice_of_eviction_asks_for_one_checkpoint_while_it_stands(tmp_path: Path) -> None:
    now = Situation(tmp_path)
    assert not now.saves(1)
    now.is_preempted = True
    assert not now.saves(2), "not looked at again so soon"
    now.now_s += 5
    assert now.saves(3)
    for step in range(4, 7):
        now.now_s += 60
        assert not now.saves(step), "saved for this notice"
    now.is_preempted = False
    now.now_s += 5
    assert not now.saves(7)
    now.is_preempted = True
    now.now_s += 5
    assert now.saves(8), "another notice"
    assert now.num_looks == 7, "once in five seconds"


def test_a_stop_request_is_looked_for_once_a_second_and_saves(tmp_path: Path) -> None:
    now = Situation(tmp_path)
    assert not now.saving.after_step(1)
    (tmp_path / STOP_REQUEST).write_text("please")
    assert not now.saving.after_step(2), "not looked at again within a second"
    now.now_s += 1
    assert now.saving.after_step(3)
    now.saving.finish()
    assert now.completed == [3]


def test_the_state_is_copied_before_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, goes_on, original = Situation(tmp_path, every=1), threading.Event(), saving.save_weights

    def save_weights(path: Path, weights: Mapping[str, torch.Tensor], **options: bool) -> None:
        assert goes_on.wait(300)
        original(path, weights, **options)

    monkeypatch.setattr(saving, "save_weights", save_weights)
    now.saving.after_step(1)
    now.weights += 1
    assert now.completed == []
    goes_on.set()
    now.saving.after_step(2)
    assert now.completed == [1], "the one before is finished first"
    now.saving.finish()
    for step, value in ((1, 0.0), (2, 1.0)):
        found = load_file(tmp_path / f"checkpoints/step_{step:08d}/a.safetensors")
        assert torch.equal(found["w"], torch.full((3,), value))


@pytest.mark.parametrize(
    ("error", "complete"), [(None, [1]), (NonFiniteError("loss"), [1]), (RuntimeError("lost"), [])]
)
def test_the_checkpoint_under_way_is_completed_unless_the_others_may_be_gone(
    tmp_path: Path, error: Exception | None, complete: list[int]
) -> None:
    now = Situation(tmp_path, every=1)

    def run() -> None:
        with now.saving:
            now.saving.after_step(1)
            if error is not None:
                raise error

    if error is None:
        run()
    else:
        with pytest.raises(type(error), match=str(error)):
            run()
    assert now.saving.store.steps() == complete
    assert (tmp_path / "checkpoints/step_00000001/a.safetensors").is_file(), "its thread has ended"


def test_a_full_disk_ends_the_run_and_keeps_the_checkpoints_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = Situation(tmp_path, every=1)
    assert now.saves(1)

    def save_weights(path: Path, weights: object, **options: bool) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(saving, "save_weights", save_weights)
    with pytest.raises(DiskFullError, match=r"step 2 in .*step 1 is the newest good one"):
        now.saves(2)
    assert now.saving.store.steps() == [1]
