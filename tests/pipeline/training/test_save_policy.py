"""A run saves by the clock, once for a notice of eviction, and stops on request."""

from __future__ import annotations

from pathlib import Path

from pipeline.storage import Folder
from pipeline.training.rundir import STOP_REQUEST
from pipeline.training.save_policy import SavePolicy


class Situation:
    """A clock and a notice that a test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.is_preempted = False
        self.num_polls = 0

    def policy(self, run: Path, rank: int = 0, every_minutes: float = 0.0) -> SavePolicy:
        return SavePolicy(Folder.at(run), rank, every_minutes, self._notice, lambda: self.now_s)

    def _notice(self) -> bool:
        self.num_polls += 1
        return self.is_preempted


def test_a_checkpoint_is_due_by_the_clock_since_the_last_one(tmp_path: Path) -> None:
    now = Situation()
    policy, other = now.policy(tmp_path, every_minutes=2), now.policy(tmp_path, 1, every_minutes=2)
    now.now_s += 119
    assert not policy.wants_save()
    now.now_s += 1
    assert policy.wants_save()
    assert not other.wants_save(), "the first worker asks for all"
    policy.saved()
    assert not policy.wants_save()
    now.now_s += 120
    assert policy.wants_save()


def test_without_minutes_the_clock_never_asks(tmp_path: Path) -> None:
    now = Situation()
    policy = now.policy(tmp_path)
    now.now_s += 1e6
    assert not policy.wants_save()


def test_a_notice_of_any_worker_asks_for_one_checkpoint_while_it_stands(tmp_path: Path) -> None:
    now = Situation()
    policy = now.policy(tmp_path, rank=1)
    assert not policy.wants_save()
    now.is_preempted = True
    now.now_s += 2
    assert policy.wants_save()
    policy.saved()
    for _ in range(3):
        now.now_s += 60
        assert not policy.wants_save(), "saved for this notice"
    now.is_preempted = False
    now.now_s += 2
    assert not policy.wants_save()
    now.is_preempted = True
    now.now_s += 2
    assert policy.wants_save(), "another notice"


def test_files_and_notices_are_looked_at_once_a_second(tmp_path: Path) -> None:
    now = Situation()
    policy, other = now.policy(tmp_path), now.policy(tmp_path, rank=1)
    assert not policy.wants_stop()
    (tmp_path / STOP_REQUEST).write_text("please")
    assert not policy.wants_stop(), "not looked at again within a second"
    assert now.num_polls == 1
    now.now_s += 1
    assert policy.wants_stop()
    assert not other.wants_stop()
