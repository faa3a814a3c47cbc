"""One process and its units: failures, a broken GPU, signs of life."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from pipeline.data.units.commits import Unit
from pipeline.data.units.runner import UnitRunner, row_of
from tests.factories.stage import NumberWorker, job_of, number_units, run_numbers


@pytest.fixture
def faults(tmp_path: Path) -> Path:
    return tmp_path / "faults"


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
