from __future__ import annotations

import os

import pytest

from jobs.ingest import main as ingest_main
from jobs.prepare import main as prepare_main
from pipeline.data.units.stage import Resources
from pipeline.errors import PlannedOnlyError
from tests.factories.clips import write_codec
from tests.factories.corpora import write_corpus
from tests.factories.stage import number_units, run_numbers, snapshot

DRY = Resources(workers=0, dry_run=True)


def preview(folder, count):
    with pytest.raises(PlannedOnlyError) as planned:
        run_numbers(folder, number_units(count), resources=DRY)
    return planned.value.preview


def test_a_dry_run_of_a_new_stage_writes_nothing(tmp_path):
    found = preview(tmp_path / "out", 3)
    assert (found.num_units, len(found.pending), found.num_stale) == (3, 3, 0)
    assert found.left_s is None
    assert "time unknown" in str(found)
    assert not (tmp_path / "out").exists()


def test_the_time_left_follows_from_the_pace_of_the_units_done(tmp_path):
    out = tmp_path / "out"
    run_numbers(out, number_units(5))
    for number, at_s in enumerate((100, 110, 120, 5_000, 5_010)):  # two runs with a pause
        os.utime(out / f"rejects/part-{number:08d}.parquet", (at_s, at_s))
    before = snapshot(out)
    found = preview(out, 9)
    assert [unit.name for unit in found.pending] == [f"{n:08d}" for n in range(5, 9)]
    assert found.left_s == 40.0
    assert "about 40 s (5 units done, one every 10 s)" in str(found)
    assert snapshot(out) == before


def test_units_that_would_be_taken_away_are_told(tmp_path):
    run_numbers(tmp_path / "out", number_units(3))
    assert "take away 1 old ones" in str(preview(tmp_path / "out", 2))


def test_a_dry_run_with_nothing_to_do_gives_the_card(tmp_path):
    card = run_numbers(tmp_path / "out", number_units(2))
    assert run_numbers(tmp_path / "out", number_units(2), resources=DRY) == card


def test_ingest_tries_a_few_clips_and_prepare_says_what_waits(tmp_path, capsys):
    source = write_corpus(tmp_path / "in/sound", {f"{n}.wav": None for n in range(10)})
    out = tmp_path / "out"
    at = ["--input", str(source), "--set", "resources.workers=0"]
    assert ingest_main([*at, "--output", str(out), "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "scan: would do 1 of 1 units" in text
    assert "5 of 10 clips tried" in text
    assert not out.exists()
    assert not (tmp_path / "out.work").exists()

    codec = write_codec(tmp_path / "codec")
    assert prepare_main([*at[:2], "--codec", codec, "--output", str(out), "--dry-run"]) == 0
    assert "shard: waits for ingest" in capsys.readouterr().out
    assert not out.exists()
    assert ingest_main([*at, "--output", str(out / "clips")]) == 0
    assert prepare_main([*at[:2], "--codec", codec, "--output", str(out), "--dry-run"]) == 0
    assert "encode: would do 1 of 1 units" in capsys.readouterr().out
