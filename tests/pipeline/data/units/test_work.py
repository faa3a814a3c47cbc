"""Units that fail: what is tried again, what is listed, and what is never a reject."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from tenacity import wait_none

from pipeline.data.units import work as module
from pipeline.errors import PipelineError, UnitsFailedError
from pipeline.storage import Folder
from tests.factories.stage import NumberWorker, number_units, run_numbers, snapshot


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BETWEEN_ROUNDS", wait_none())


@pytest.fixture
def faults(tmp_path: Path) -> Path:
    return tmp_path / "faults"


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
