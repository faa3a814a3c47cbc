"""One driver at a time writes a directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.units import lease as module
from pipeline.data.units.lease import LEASE, Lease, check_free
from pipeline.errors import InUseError, PipelineError
from pipeline.storage import Folder
from tests.factories.stage import number_units, run_numbers, snapshot


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_S", 0.01)
    monkeypatch.setattr(module, "STALE_S", 0.2)
    monkeypatch.setattr(module, "_POLL_S", 0.01)
    monkeypatch.setattr(module, "_SETTLE_S", 0.0)


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def lease_of(folder: Folder, **changed: Any) -> dict[str, Any]:
    """The lease of a living process of this machine, with changes."""
    with Lease(folder, "scan"):
        state: dict[str, Any] = folder.read_json(LEASE)
    return state | {"run_id": "other"} | changed


def test_a_second_driver_is_refused_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    folder = Folder.at(tmp_path)
    with (
        Lease(folder, "scan"),
        pytest.raises(InUseError, match=rf"written by scan, process {os.getpid()} on .+, since 20"),
        Lease(folder, "scan"),
    ):
        raise AssertionError
    assert not folder.exists(LEASE)
    with Lease(folder, "scan"):
        assert folder.exists(LEASE)


def test_a_lease_ends_also_with_an_error(tmp_path: Path) -> None:
    folder = Folder.at(tmp_path)
    with pytest.raises(KeyError), Lease(folder, "scan"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", ["", "{}", "[1]", '{"run_id": "x"}'])
def test_what_is_no_lease_holds_nothing(tmp_path: Path, file: str) -> None:
    (tmp_path / LEASE).write_text(file)
    with Lease(Folder.at(tmp_path), "scan"):
        pass


def test_the_lease_of_a_process_that_is_gone_is_taken_over_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STALE_S", 1e9)
    folder = Folder.at(tmp_path)
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    wait_for(lambda: Path(f"/proc/{child.pid}/stat").read_text().split()[2] == "Z")
    folder.write_json(LEASE, lease_of(folder, pid=child.pid, started="1"))
    try:
        with Lease(folder, "scan"):  # not reaped yet, but dead
            assert folder.read_json(LEASE)["pid"] == os.getpid()
    finally:
        child.wait()
    folder.write_json(LEASE, lease_of(folder, pid=child.pid))
    with Lease(folder, "scan"):
        pass
    folder.write_json(LEASE, lease_of(folder, started="another process of the same number"))
    with Lease(folder, "scan"):
        pass


def test_another_machine_is_alive_while_its_heartbeat_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder.at(tmp_path)
    state = lease_of(folder, machine="elsewhere", host="node-7")
    folder.write_json(LEASE, state)
    with monkeypatch.context() as patched:
        patched.setattr(module, "STALE_S", 3600.0)
        # It beats in the pause between two looks at it.
        patched.setattr(time, "sleep", lambda _: folder.write_json(LEASE, state | {"beat": 1}))
        with pytest.raises(InUseError, match="node-7"):
            check_free(folder)
    check_free(folder)  # its heartbeat stands still by now
    assert not folder.exists(LEASE)


def test_a_driver_whose_lease_was_taken_over_stops(tmp_path: Path) -> None:
    folder = Folder.at(tmp_path)
    with Lease(folder, "scan") as lease:
        other = {**folder.read_json(LEASE), "run_id": "other"}

        def is_noticed() -> bool:
            # A heartbeat that has just read its own lease writes it once more.
            folder.write_json(LEASE, other)
            return lease._is_lost

        wait_for(is_noticed)
        with pytest.raises(InUseError, match="another run took over"):
            lease.check()
    assert folder.read_json(LEASE) == other, "it is not ours to remove"


def test_the_heartbeat_moves(tmp_path: Path) -> None:
    folder = Folder.at(tmp_path)
    with Lease(folder, "scan"):
        wait_for(lambda: folder.read_json(LEASE)["beat"] > 2)


@pytest.mark.parametrize("error", [PermissionError, FileExistsError])
def test_without_hard_links_the_lease_is_written_and_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, "link", refuse)
    with Lease(Folder.at(tmp_path), "scan"):
        assert (tmp_path / LEASE).exists()
    assert list(tmp_path.iterdir()) == []


def test_of_two_that_start_at_once_the_one_found_afterwards_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder.at(tmp_path)
    other = lease_of(folder)
    monkeypatch.setattr(module, "create_file", lambda *_: None)
    monkeypatch.setattr(time, "sleep", lambda _: folder.write_json(LEASE, other))
    with pytest.raises(InUseError), Lease(folder, "scan"):
        raise AssertionError
    assert folder.read_json(LEASE) == other


def test_a_stage_refuses_a_folder_in_use_and_changes_nothing(tmp_path: Path) -> None:
    run_numbers(tmp_path, number_units(2))
    before = snapshot(tmp_path)
    with Lease(Folder.at(tmp_path), "numbers"):
        with pytest.raises(InUseError, match="is being written by numbers"):
            run_numbers(tmp_path, number_units(3))
        run_numbers(tmp_path, number_units(2))  # nothing to do: reading is free
    assert snapshot(tmp_path) == before
    assert run_numbers(tmp_path, number_units(3))["units"] == 3
    assert not (tmp_path / LEASE).exists()


def test_a_failed_stage_gives_its_folder_back(tmp_path: Path) -> None:
    with pytest.raises(PipelineError):
        run_numbers(tmp_path, number_units(2), fail_at="00000001")
    assert not (tmp_path / LEASE).exists()
    assert json.loads((tmp_path / "_stage.json").read_text()) == {"stage": "numbers"}
