"""Whatever dies at any write of the commit log, it says what it said before or says afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.units import commit_log
from pipeline.data.units.commit_log import COMMITS, LOG, CommitLog
from pipeline.storage import Folder
from tests.factories.killing import is_killed_at
from tests.factories.stage import snapshot

Operation = Callable[[CommitLog], None]


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_log, "SEGMENT_RECORDS", 3)
    monkeypatch.setattr(commit_log, "MAX_RUNS", 3)


def record(number: int, settings: str = "") -> dict[str, Any]:
    return {"unit": f"{number:08d}", "settings_digest": settings, "files": {f"parts/{number}": ""}}


def commit(folder: Folder, *records: dict[str, Any]) -> None:
    for each in records:
        folder.write_json(f"{COMMITS}/{each['unit']}.json", each)


def names(*numbers: int) -> list[str]:
    return [f"{number:08d}" for number in numbers]


def log_of(root: Path) -> CommitLog:
    """Ten records: segments, a younger segment that replaces two of them, and single ones."""
    folder = Folder.at(root)
    log = CommitLog(folder)
    commit(folder, *map(record, (0, 1, 2, 4, 6, 7, 8)))
    log.compact()
    commit(folder, record(1, "younger"), record(3), record(7, "younger"))
    log.append(names(1, 3, 7))
    commit(folder, record(5), record(2, "single"), record(9))
    return log


def test_records_come_in_the_order_of_units_and_the_youngest_of_a_unit_counts(tmp_path):
    found = list(log_of(tmp_path))
    assert [each["unit"] for each in found] == names(*range(10))
    assert {each["unit"]: each["settings_digest"] for each in found if each["settings_digest"]} == {
        "00000001": "younger",
        "00000002": "single",
        "00000007": "younger",
    }


def killed_at_every_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operate: Operation
) -> list[list[dict[str, Any]]]:
    """What the log says after the process died before its first, second ... write or removal.

    The next run ends in the same bytes as one that nothing disturbed.
    """
    states: list[list[dict[str, Any]]] = []
    whole = log_of(tmp_path / "whole")
    operate(whole)
    whole.compact()
    for num_writes in count():
        root = tmp_path / str(num_writes)
        log = log_of(root)
        if not is_killed_at(monkeypatch, num_writes, partial(operate, log)):
            return states
        states.append(list(log))
        operate(log)
        log.compact()
        assert snapshot(root) == snapshot(tmp_path / "whole")
    raise AssertionError("numbers do not end")


OPERATIONS: dict[str, Operation] = {
    "compact": CommitLog.compact,
    "append": lambda log: log.append(names(2, 5, 9)),
    "append and merge": lambda log: [log.append([unit]) for unit in names(9, 5, 2)] and None,
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_gathering_changes_no_record_wherever_it_dies(tmp_path, monkeypatch, name):
    before = list(log_of(tmp_path / "before"))
    states = killed_at_every_write(tmp_path, monkeypatch, OPERATIONS[name])
    assert len(states) > 4
    assert all(state == before for state in states)


def test_records_are_forgotten_all_at_once_wherever_it_dies(tmp_path, monkeypatch):
    gone = names(1, 2, 6, 9)
    before = list(log_of(tmp_path / "before"))
    after = [each for each in before if each["unit"] not in gone]
    states = killed_at_every_write(tmp_path, monkeypatch, lambda log: log.forget(gone))
    assert before in states
    assert after in states
    assert all(state in (before, after) for state in states)


def test_the_form_of_a_compacted_log_follows_from_its_records(tmp_path):
    log_of(tmp_path / "one").compact()
    other = CommitLog(Folder.at(tmp_path / "other"))
    commit(other.folder, *list(log_of(tmp_path / "source")))
    other.compact()
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "other")


def test_the_number_of_objects_and_of_runs_stays_small(tmp_path):
    log = CommitLog(Folder.at(tmp_path))
    units = [number * 7 % 60 for number in range(60)]  # out of order, as workers end
    for start in range(0, 60, 3):
        commit(log.folder, *map(record, units[start : start + 3]))
        log.append(names(*units[start : start + 3]))
        assert not list((tmp_path / COMMITS).iterdir())
        segments = json.loads((tmp_path / LOG / "index.json").read_bytes())["segments"]
        assert len(segments) <= 1 + start // 3
        ends = pairwise(segments)
        num_runs = 1 + sum(one["last"] >= other["first"] for one, other in ends)
        assert num_runs <= commit_log.MAX_RUNS
    assert [each["unit"] for each in log] == names(*range(60))
    log.compact()
    assert len(list((tmp_path / LOG).iterdir())) == 1 + 60 // 3


def test_segments_end_before_they_are_large(tmp_path, monkeypatch):
    monkeypatch.setattr(commit_log, "SEGMENT_RECORDS", 1_000)
    monkeypatch.setattr(commit_log, "SEGMENT_BYTES", 500)
    log = CommitLog(Folder.at(tmp_path))
    commit(log.folder, *map(record, range(50)))
    log.compact()
    sizes = [path.stat().st_size for path in (tmp_path / LOG).glob("*.jsonl")]
    assert len(sizes) > 5
    assert max(sizes) < 700
    assert list(log) == [record(number) for number in range(50)]


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"{}\n")])
def test_a_lost_or_damaged_segment_loses_its_units_alone(tmp_path, caplog, damage):
    log = CommitLog(Folder.at(tmp_path))
    commit(log.folder, *map(record, range(9)))
    log.compact()
    index = json.loads((tmp_path / LOG / "index.json").read_bytes())
    damage(tmp_path / LOG / index["segments"][1]["file"])
    assert [each["unit"] for each in log] == names(0, 1, 2, 6, 7, 8)
    assert "units 00000003 to 00000005 are done again" in caplog.text


def test_an_index_that_cannot_be_read_means_that_units_are_done_again(tmp_path, caplog):
    log = log_of(tmp_path)
    (tmp_path / LOG / "index.json").write_text("{")
    assert [each["unit"] for each in log] == names(2, 5, 9)
    assert "all gathered units are done again" in caplog.text
    log.compact()
    assert [each["unit"] for each in log] == names(2, 5, 9)
    assert len(list((tmp_path / LOG).iterdir())) == 2
