"""Units that fail: what is tried again, what is listed, and what is never a reject."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from tenacity import wait_none
from threadpoolctl import threadpool_info

from pipeline import cluster
from pipeline.data.units import work as module
from pipeline.data.units.attempts import Attempts
from pipeline.data.units.commits import Commits, Unit
from pipeline.data.units.stage import Resources
from pipeline.data.units.work import Job, UnitRunner, Watchdog
from pipeline.errors import PipelineError, SettingsError, UnitsFailedError
from pipeline.storage import Folder
from tests.factories.stage import NumberWorker, number_units, run_numbers, snapshot


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BETWEEN_ROUNDS", wait_none())


@pytest.fixture
def faults(tmp_path: Path) -> Path:
    return tmp_path / "faults"


def job_of(folder: Path, **given: Any) -> Job:
    at = Folder.at(folder)
    return Job("numbers", Commits(at, ""), Attempts(at, "run", 3), NumberWorker, given)


def row_of(unit: Unit) -> dict[str, Any]:
    numbers = unit.payload["numbers"]
    return {"name": unit.name, "digest": unit.digest, "payload": f'{{"numbers": {numbers}}}'}


@pytest.mark.parametrize("kind", ["EIO", "S3", "CUDA", "MEMORY"])
def test_faults_of_the_machine_leave_no_trace_in_the_output(
    tmp_path: Path, faults: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    run_numbers(tmp_path / "whole", number_units(4))
    faults.write_text(f"00000001 {kind}\n00000002 {kind}\n00000001 {kind}")
    with caplog.at_level(logging.WARNING):
        run_numbers(tmp_path / "out", number_units(4), faults=str(faults))
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "whole")
    assert faults.read_text() == ""
    assert "2 units are tried again" in caplog.text


def test_a_fault_that_stays_fails_the_job_with_the_list_and_rejects_nothing(
    tmp_path: Path, faults: Path
) -> None:
    faults.write_text("00000001 EIO\n" * 3 + "00000003 BUG\n" * 9)
    with pytest.raises(UnitsFailedError) as caught:
        run_numbers(tmp_path / "out", number_units(5), faults=str(faults))
    text = str(caught.value)
    assert text.startswith(
        "numbers: 2 of 5 units failed, the others are kept: unit 00000001: OSError"
    )
    assert "Input/output error; unit 00000003: TypeError: a bug; running again does only" in text
    assert faults.read_text().count("BUG") == 8, "a bug is not tried again"
    done = [path.stem for path in sorted((tmp_path / "out/_commit").iterdir())]
    assert done == ["00000000", "00000002", "00000004"]
    assert not Folder.at(tmp_path / "out").is_complete
    log = tmp_path / "log"
    run_numbers(tmp_path / "out", number_units(5), log=str(log))
    assert log.read_text().split() == ["00000001", "00000003"]
    run_numbers(tmp_path / "whole", number_units(5))
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "whole")


def test_a_long_list_of_failures_is_cut_in_the_message_and_whole_in_the_log(
    tmp_path: Path, faults: Path, caplog: pytest.LogCaptureFixture
) -> None:
    faults.write_text("\n".join(f"{number:08d} BUG" for number in range(14)))
    with pytest.raises(UnitsFailedError, match=r"14 of 14.*and 4 more, see the log"):
        run_numbers(tmp_path / "out", number_units(14), faults=str(faults))
    assert "not done: unit 00000013" in caplog.text


def test_a_wrong_setting_ends_the_job_at_once(tmp_path: Path, faults: Path) -> None:
    faults.write_text("00000001 SETTING")
    with pytest.raises(PipelineError, match="the key is wrong"):
        run_numbers(tmp_path / "out", number_units(4), faults=str(faults))
    assert [path.stem for path in (tmp_path / "out/_commit").iterdir()] == ["00000000"]


def test_a_worker_that_cannot_be_built_fails_its_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: object, **_: object) -> None:
        raise ImportError("no such library")

    monkeypatch.setattr(NumberWorker, "__init__", refuse)
    with pytest.raises(UnitsFailedError, match="ImportError: no such library"):
        run_numbers(tmp_path / "out", number_units(1))


def test_a_process_whose_gpu_broke_leaves_the_next_unit_to_another_one(
    tmp_path: Path, faults: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults.write_text("00000000 CUDA\n00000001 MEMORY")
    units = number_units(3)

    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(os, "_exit", leave)
    job = job_of(tmp_path / "out", faults=str(faults))
    runner = UnitRunner(replace(job, hang_timeout_s=600.0))
    result = runner(row_of(units[0]))
    assert result["is_transient"]
    assert "illegal memory access" in result["failure"]
    with pytest.raises(SystemExit):
        runner(row_of(units[1]))
    assert not (tmp_path / "out/_attempts/00000001.json").exists(), (
        "it was not begun: no death counts"
    )
    runner = UnitRunner(replace(job, hang_timeout_s=600.0))
    assert runner(row_of(units[1]))["is_transient"]
    assert runner(row_of(units[1]))["read"] == 4, "memory that ran out breaks no process"


def test_a_failure_is_no_death_of_the_worker(tmp_path: Path, faults: Path) -> None:
    faults.write_text("00000000 EIO\n" * 5)
    runner = UnitRunner(job_of(tmp_path / "out", faults=str(faults)))
    for _ in range(5):
        assert runner(row_of(number_units(1)[0]))["failure"]
    result = runner(row_of(number_units(1)[0]))
    assert (result["deadly"], result["failure"], result["read"]) == ("", "", 4)


def test_units_use_one_thread_of_blas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    whole = NumberWorker.process

    def look(self: NumberWorker, unit: Unit) -> Any:
        np.linalg.norm(np.eye(2))
        blas = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
        seen.extend(pool["num_threads"] for pool in blas)
        return whole(self, unit)

    monkeypatch.setattr(NumberWorker, "process", look)
    run_numbers(tmp_path / "out", number_units(1))
    assert set(seen) == {1}


@pytest.mark.parametrize("asked", [{"gpus": 1}, {"cpus": 64}, {"memory_bytes": 2**50}])
def test_what_the_cluster_can_never_give_is_said_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any]
) -> None:
    node = {"Alive": True, "Resources": {"CPU": 2.0, "memory": 2.0**34}, "Labels": {}}
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "nodes", lambda: [node])
    monkeypatch.setattr(cluster, "_internal_kv_get", lambda _: None)
    with pytest.raises(SettingsError, match=r"numbers asks for .* Ray has 1 node .* lower resourc"):
        run_numbers(tmp_path / "out", number_units(2), resources=Resources(workers=1, **asked))


def test_a_unit_shows_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    whole = NumberWorker.process
    state = tmp_path / "out/_attempts/00000000.json"

    def long(self: NumberWorker, unit: Unit) -> Any:
        for _ in range(3):
            state.unlink()
            unit.beat()
            saved.append(state.exists())
        return whole(self, unit)

    monkeypatch.setattr(NumberWorker, "process", long)
    job = replace(job_of(tmp_path / "out"), sign_every_s=0.0)
    UnitRunner(job)(row_of(number_units(1)[0]))
    assert saved == [True] * 3


def test_the_watchdog_ends_a_job_in_which_nothing_gets_on(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGALRM)
    with (
        pytest.raises(PipelineError, match=r"for 1 s no unit ended and no worker got on"),
        Watchdog(Folder.at(tmp_path), job_of(tmp_path), 1.0),
    ):
        threading.Event().wait(60)
    assert signal.getsignal(signal.SIGALRM) == before


def test_the_watchdog_is_fed_by_units_and_by_signs_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SIGNS_PER_TIMEOUT", 60_000)
    with Watchdog(Folder.at(tmp_path), job_of(tmp_path), 600.0) as watchdog:
        for feed in (watchdog.feed, (tmp_path / "0.json").touch, (tmp_path / "1.json").touch):
            watchdog._fed_at = long_ago = time.monotonic() - 300
            feed()
            while watchdog._fed_at == long_ago:  # the test's own limit ends a dead watchdog
                time.sleep(0.005)
