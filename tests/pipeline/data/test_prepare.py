from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import ray

from jobs.prepare import main
from pipeline.data.prepare import FOLDERS, PrepareSettings, prepare, summary
from pipeline.settings import load_settings
from pipeline.storage import Folder
from tests.factories.clips import noise, tone, voice, write_codec, write_recordings
from tests.factories.stage import snapshot

HERE = {stage: {"resources": {"workers": 0}} for stage in ("ingest", "encode", "describe", "shard")}


@pytest.fixture
def corpus(tmp_path):
    """Folders of plain files, one of them too short to keep."""
    root = tmp_path / "corpora"
    waves = {
        "sound/birds/robin.wav": noise(1.0),
        "sound/birds/blackbird.wav": noise(1.5, 1),
        "music/tones/a.wav": tone(2.0, 220),
        "music/tones/b.wav": tone(1.2, 330),
        "speech/talk/one.wav": voice(1.4, 120),
        "sound/birds/blip.wav": np.zeros(20, np.float32),
    }
    write_recordings(root, waves)
    (root / "speech/talk/one.txt").write_text("one two three\n")
    return root


def settings_for(corpus, **ingest) -> PrepareSettings:
    values = {**HERE, "ingest": {**HERE["ingest"], "inputs": (str(corpus),), **ingest}}
    return PrepareSettings.model_validate(values)


def test_corpora_become_shards_and_every_stage_adds_up(corpus, tmp_path):
    codec = write_codec(tmp_path / "codec")
    cards = prepare(settings_for(corpus), Folder.at(tmp_path / "out"), codec)
    assert list(cards) == list(FOLDERS)
    for card in cards.values():
        assert card["read"] == card["written"] + card["rejected"]
    assert cards["ingest"]["rejected"] == 1
    assert cards["shard"]["written"] == cards["ingest"]["written"] == 5
    hours = cards["shard"]["hours"]["by_modality"]
    assert hours["sound"] == pytest.approx(2.5 / 3600, rel=0.01)


def test_second_run_changes_nothing_and_a_new_clip_is_added(corpus, tmp_path, caplog):
    codec = write_codec(tmp_path / "codec")
    out = Folder.at(tmp_path / "out")
    prepare(settings_for(corpus), out, codec)
    before = snapshot(tmp_path / "out")
    with caplog.at_level("INFO"):
        prepare(settings_for(corpus), out, codec)
    assert snapshot(tmp_path / "out") == before
    assert sum("nothing to do" in record.message for record in caplog.records) >= 4
    write_recordings(corpus, {"music/tones/c.wav": tone(1.0, 440)})
    cards = prepare(settings_for(corpus), out, codec)
    assert cards["shard"]["written"] == 6
    fresh = prepare(settings_for(corpus), Folder.at(tmp_path / "fresh"), codec)
    for stage in ("encode", "describe", "shard"):
        assert fresh[stage]["written"] == cards[stage]["written"] == 6


def test_summary_shows_counts_hours_and_reasons():
    cards = {
        "ingest": {
            "read": 1234,
            "written": 1200,
            "rejected": 34,
            "rejected_by_reason": {"silent": 30, "too_short": 4},
            "hours": {"by_modality": {"music": 1.5, "speech": 2.0}, "by_language": {}},
        }
    }
    lines = summary(cards).split("\n")
    assert lines[1].split() == [
        "ingest", "1,234", "1,200", "34", "3.500", "music", "1.500,", "speech", "2.000",
    ]  # fmt: skip
    assert lines[2:] == ["ingest: 30 x silent", "ingest: 4 x too_short"]


def test_command_prepares_and_prints_the_summary(corpus, tmp_path, capsys):
    codec = write_codec(tmp_path / "codec")
    workers = [f"--set={stage}.resources.workers=0" for stage in HERE]
    code = main(
        ["--input", str(corpus), "--codec", codec, "--output", str(tmp_path / "out"), *workers]
    )
    assert code == 0
    assert "shard" in capsys.readouterr().out
    assert Folder.at(tmp_path / "out/train-shards").is_complete


def test_command_reports_a_missing_codec_in_one_line(corpus, tmp_path, capsys):
    workers = [f"--set={stage}.resources.workers=0" for stage in HERE]
    output = ["--output", str(tmp_path / "out")]
    code = main(["--input", str(corpus), "--codec", str(tmp_path / "none"), *output, *workers])
    assert code == 1
    assert "holds no codec" in capsys.readouterr().err
    assert not (tmp_path / "out").exists(), "found before hours of ingest, not after"


def test_recipes_are_valid():
    recipes = sorted(Path("jobs/configs").glob("prepare_*.yaml"))
    assert recipes
    for recipe in recipes:
        assert load_settings(PrepareSettings, recipe).ingest.resources.workers


def test_no_ray_starts_where_nothing_is_to_be_done(corpus, tmp_path, monkeypatch):
    codec, out = write_codec(tmp_path / "codec"), Folder.at(tmp_path / "out")
    first = prepare(settings_for(corpus), out, codec)

    def refuse(**_: object) -> None:
        raise AssertionError("Ray was asked for")

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    several = settings_for(corpus).model_dump()
    for stage in FOLDERS:
        several[stage]["resources"]["workers"] = 2
    assert prepare(PrepareSettings.model_validate(several), out, codec) == first
