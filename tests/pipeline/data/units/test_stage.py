from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import pytest

from pipeline.data.units import commit_log, work
from pipeline.data.units.commit_log import CommitLog
from pipeline.data.units.stage import Resources, Unit
from pipeline.errors import (
    IncompleteError,
    PipelineError,
    TooManyRejectsError,
    UnitsFailedError,
)
from pipeline.storage import Folder, read_tables, sha256
from tests.factories.killing import is_killed_at
from tests.factories.stage import NumberSettings, number_units, run_numbers, snapshot

ROOT = Path(__file__).parents[3]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.touch()
    return path


def test_card_adds_up_and_names_every_file_by_digest(tmp_path):
    card = run_numbers(tmp_path / "out", number_units(3))
    assert (card["read"], card["written"], card["rejected"]) == (12, 6, 6)
    assert card["rejected_by_reason"] == {"odd": 6}
    assert card["hours"] == {"by_modality": {"sound": 3.0}, "by_language": {"en": 3.0}}
    on_disk = {
        name: sha256(payload)
        for name, payload in snapshot(tmp_path / "out").items()
        if payload is not None and name.startswith(("parts/", "rejects/"))
    }
    assert Folder.at(tmp_path / "out").file_digests() == on_disk
    assert card["file_list"] == {
        "name": "files.parquet",
        "sha256": sha256((tmp_path / "out/files.parquet").read_bytes()),
        "count": 6,
    }
    assert len(on_disk) == 6


def test_rejects_are_readable_rows(tmp_path):
    run_numbers(tmp_path / "out", number_units(2))
    folder = Folder.at(tmp_path / "out")
    rows = read_tables(folder, folder.listed("rejects/")).to_pylist()
    assert [row["detail"] for row in rows] == ["got 1", "got 3", "got 5", "got 7"]


def test_second_run_does_nothing(tmp_path, log, caplog):
    run_numbers(tmp_path / "out", number_units(3))
    before = snapshot(tmp_path / "out")
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
    with caplog.at_level("INFO"):
        run_numbers(tmp_path / "out", number_units(3), log=str(log))
    assert "nothing to do" in caplog.text
    assert log.read_text() == ""
    assert snapshot(tmp_path / "out") == before
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")} == stamps


def test_units_whose_names_begin_alike_are_told_apart(tmp_path, log):
    units = [Unit(name, f"of {name}", {"numbers": [2]}) for name in ("a", "a-b", "a.c")]
    run_numbers(tmp_path / "out", units)
    run_numbers(tmp_path / "out", units, log=str(log))
    assert log.read_text() == ""


@pytest.mark.parametrize("fail_at", ["00000000", "00000002", "00000004"])
def test_failure_after_some_units_then_rerun_gives_the_same_bytes(tmp_path, log, fail_at):
    run_numbers(tmp_path / "whole", number_units(5))
    with pytest.raises(PipelineError, match=r"unit \d+: OSError: injected"):
        run_numbers(tmp_path / "broken", number_units(5), fail_at=fail_at)
    with pytest.raises(IncompleteError, match="not complete"):
        Folder.at(tmp_path / "broken").card()
    run_numbers(tmp_path / "broken", number_units(5), log=str(log))
    assert snapshot(tmp_path / "broken") == snapshot(tmp_path / "whole")
    assert log.read_text().split() == [fail_at], "one failing unit must not stop the others"


@pytest.mark.parametrize("left", [b"", b'{\n "digest": "dig', b"\xff\xfe"])
def test_a_unit_whose_record_cannot_be_read_is_done_again(tmp_path, log, caplog, left):
    run_numbers(tmp_path / "whole", number_units(3))
    with pytest.raises(UnitsFailedError):
        run_numbers(tmp_path / "out", number_units(3), fail_at="00000002")
    (tmp_path / "out/_commit/00000001.json").write_bytes(left)
    run_numbers(tmp_path / "out", number_units(3), log=str(log))
    assert log.read_text().split() == ["00000001", "00000002"]
    assert "unit 00000001 is done again" in caplog.text
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "whole")


def test_what_a_killed_writer_left_is_swept(tmp_path):
    run_numbers(tmp_path / "whole", number_units(3))
    run_numbers(tmp_path / "out", number_units(3))
    out = tmp_path / "out"
    # As if killed between the files of unit 2 and its commit record, and in the middle of a write.
    (out / "_COMPLETE").unlink()
    CommitLog(Folder.at(out)).forget(["00000002"])
    (out / "parts/.aside-0123-part-00000002.json").write_bytes(b"half")
    (out / "parts/part-00000007.json").write_bytes(b"orphan")
    run_numbers(out, number_units(3))
    assert snapshot(out) == snapshot(tmp_path / "whole")


def as_an_earlier_version_left_it(out: Path) -> None:
    """One record a unit, and the digests of files in the card."""
    folder = Folder.at(out)
    card = folder.card() | {"files": folder.file_digests()}
    for record in list(CommitLog(folder)):
        folder.write_json(f"_commit/{record['unit']}.json", record)
    shutil.rmtree(out / "_commit_log")
    (out / "files.parquet").unlink()
    del card["file_list"]
    folder.finish(card)


def test_a_directory_of_an_earlier_version_stays_and_new_units_are_added_to_it(tmp_path, log):
    out = tmp_path / "out"
    run_numbers(out, number_units(3))
    as_an_earlier_version_left_it(out)
    before = snapshot(out)
    run_numbers(out, number_units(3), log=str(log))
    assert log.read_text() == ""
    assert snapshot(out) == before
    run_numbers(out, number_units(4), log=str(log))
    assert log.read_text().split() == ["00000003"]
    run_numbers(tmp_path / "whole", number_units(4))
    assert snapshot(out) == snapshot(tmp_path / "whole")


def test_changed_unit_alone_is_redone(tmp_path, log):
    run_numbers(tmp_path / "out", number_units(3))
    units = number_units(3)
    units[1] = Unit("00000001", "other", {"numbers": [100]})
    card = run_numbers(tmp_path / "out", units, log=str(log))
    assert log.read_text().split() == ["00000001"]
    assert card["read"] == 9
    run_numbers(tmp_path / "fresh", units)
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "fresh")


def test_vanished_unit_is_removed_with_its_files(tmp_path, log):
    run_numbers(tmp_path / "out", number_units(3))
    run_numbers(tmp_path / "out", number_units(2), log=str(log))
    run_numbers(tmp_path / "fresh", number_units(2))
    assert log.read_text() == ""
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "fresh")


def test_deleted_file_is_written_again(tmp_path):
    run_numbers(tmp_path / "out", number_units(2))
    before = snapshot(tmp_path / "out")
    (tmp_path / "out/parts/part-00000001.json").unlink()
    run_numbers(tmp_path / "out", number_units(2))
    assert snapshot(tmp_path / "out") == before


def test_new_settings_redo_everything_but_tolerances_redo_nothing(tmp_path, log):
    run_numbers(tmp_path / "out", number_units(2))
    tolerant = NumberSettings(max_reject_share=0.7)
    run_numbers(tmp_path / "out", number_units(2), settings=tolerant, log=str(log))
    assert log.read_text() == ""
    run_numbers(tmp_path / "out", number_units(2), settings=NumberSettings(factor=3), log=str(log))
    assert log.read_text().split() == ["00000000", "00000001"]


def test_new_input_digest_alone_updates_the_card_alone(tmp_path, log):
    run_numbers(tmp_path / "out", number_units(2))
    card = run_numbers(tmp_path / "out", number_units(2), inputs={"numbers": "x"}, log=str(log))
    assert log.read_text() == ""
    assert card["inputs"] == {"numbers": "x"}
    assert Folder.at(tmp_path / "out").is_complete


def test_too_many_rejects_fail_with_reasons_and_leave_no_marker(tmp_path, log):
    strict = NumberSettings(max_reject_share=0.2)
    with pytest.raises(TooManyRejectsError, match=r"50\.0%, limit 20\.0%.*odd 4"):
        run_numbers(tmp_path / "out", number_units(2), settings=strict)
    assert not Folder.at(tmp_path / "out").is_complete
    run_numbers(tmp_path / "out", number_units(2), log=str(log))
    assert log.read_text() == "", "raising the limit must not redo the work"


def test_counts_that_do_not_add_up_are_refused(tmp_path, monkeypatch):
    from tests.factories.stage import NumberWorker

    whole = NumberWorker.process

    def lossy(self, unit):
        output = whole(self, unit)
        output.rejects.pop()
        return output

    monkeypatch.setattr(NumberWorker, "process", lossy)
    with pytest.raises(PipelineError, match="read 4 items but wrote 2 and rejected 1"):
        run_numbers(tmp_path / "out", number_units(1))


def test_foreign_directory_is_refused_and_untouched(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="no stage wrote"):
        run_numbers(tmp_path / "mine", number_units(1))
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    run_numbers(tmp_path / "out", number_units(1))
    with pytest.raises(ValueError, match="written by stage 'numbers'"):
        run_numbers(tmp_path / "out", number_units(1), stage="letters")


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b"])
def test_unsafe_unit_name_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="safe as file names"):
        run_numbers(tmp_path / "out", [Unit(name, "d", {"numbers": []})])


def test_repeated_unit_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match="unique"):
        run_numbers(tmp_path / "out", number_units(2) + number_units(1))


def test_card_extra_sees_all_records_in_order(tmp_path):
    units = number_units(3)[::-1]
    card = run_numbers(
        tmp_path / "out",
        units,
        card_extra=lambda records: {"order": [r["unit"] for r in records]},
    )
    assert card["order"] == ["00000000", "00000001", "00000002"]


def test_input_digest_is_of_the_card_and_needs_completion(tmp_path):
    run_numbers(tmp_path / "out", number_units(1))
    folder = Folder.at(tmp_path / "out")
    assert folder.digest == sha256((tmp_path / "out/dataset.json").read_bytes())
    folder.reopen()
    with pytest.raises(IncompleteError):
        _ = folder.digest


def test_a_stage_that_dies_before_any_of_its_writes_ends_in_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(commit_log, "SEGMENT_RECORDS", 2)
    monkeypatch.setattr(work, "SEGMENT_RECORDS", 2)
    run_numbers(tmp_path / "before", number_units(4))
    units = [Unit("00000001", "changed", {"numbers": [8]}), *number_units(5)[2:]]
    run_numbers(tmp_path / "whole", units)
    whole = snapshot(tmp_path / "whole")
    for num_writes in count():
        out = tmp_path / str(num_writes)
        shutil.copytree(tmp_path / "before", out)
        if not is_killed_at(monkeypatch, num_writes, lambda at=out: run_numbers(at, units)):
            break
        (out / "_lease.json").unlink(missing_ok=True)  # its process is this one, which lives on
        run_numbers(out, units)
        assert snapshot(out) == whole, f"after {num_writes} writes"
    assert num_writes > 20


@pytest.mark.ray
def test_ray_after_a_failure_gives_the_same_bytes_as_in_process(tmp_path, ray_session):
    run_numbers(tmp_path / "here", number_units(6))
    with pytest.raises(PipelineError, match="unit 00000003: OSError: injected"):
        run_numbers(
            tmp_path / "ray", number_units(6), fail_at="00000003", resources=Resources(workers=2)
        )
    run_numbers(tmp_path / "ray", number_units(6), resources=Resources(workers=2))
    assert snapshot(tmp_path / "ray") == snapshot(tmp_path / "here")


@pytest.mark.ray
@pytest.mark.slow
def test_item_that_kills_its_worker_is_rejected_and_the_rest_kept(tmp_path, ray_session):
    card = run_numbers(tmp_path / "out", number_units(3), die_at=6, resources=Resources(workers=1))
    assert card["rejected_by_reason"] == {"odd": 6, "worker_died": 1}
    assert json.loads((tmp_path / "out/parts/part-00000001.json").read_bytes()) == [4]
    assert not (tmp_path / "out/_attempts").exists()


@pytest.mark.ray
@pytest.mark.slow
def test_unit_that_keeps_killing_its_worker_fails_the_job_by_name(tmp_path, ray_session):
    with pytest.raises(PipelineError, match=r"00000001 \(worker died 2 times"):
        run_numbers(
            tmp_path / "out",
            number_units(3),
            die_at=6,
            die_blindly=True,
            resources=Resources(workers=1, max_attempts=2),
        )
    done = [path.stem for path in sorted((tmp_path / "out/_commit").iterdir())]
    assert done == ["00000000", "00000002"], "the other units must be kept"
    assert not Folder.at(tmp_path / "out").is_complete


KILLED = """
import sys
from tests.factories.stage import number_units, run_numbers
run_numbers(sys.argv[1], number_units(6), stay_at="00000003")
"""
"""Never ends by itself: no kill comes too late. What Ray starts is killed in `tests/chaos`."""


@pytest.mark.slow
def test_killed_process_then_rerun_gives_the_same_bytes(tmp_path, log):
    run_numbers(tmp_path / "whole", number_units(6))
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(out)], cwd=ROOT)
    try:
        while not (out / "_commit/00000002.json").exists():
            assert process.poll() is None, "the job ended before it could be killed"
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    assert not (out / "_COMPLETE").exists()
    run_numbers(out, number_units(6), log=str(log))
    assert log.read_text().split() == ["00000003", "00000004", "00000005"]
    assert snapshot(out) == snapshot(tmp_path / "whole")
