"""The ingest command prints what came of its input."""

from __future__ import annotations

from jobs import ingest
from tests.factories.corpora import write_corpus


def test_ingest_prints_what_was_read(tmp_path, capsys):
    write_corpus(tmp_path / "in" / "sound", {"a.wav": None, "bad.wav": b"no audio"})
    words = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "clips")]
    assert ingest.main([*words, "--set", "resources.workers=0"]) == 0
    _, counts, reason = capsys.readouterr().out.splitlines()
    assert counts.split()[:4] == ["ingest", "2", "1", "1"]
    assert reason == "ingest: 1 x unreadable"


def test_too_many_rejects_end_with_an_error_in_one_line(tmp_path, capsys):
    write_corpus(tmp_path / "in" / "sound", {"bad.wav": b"no audio"})
    words = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "clips")]
    assert ingest.main([*words, "--set", "resources.workers=0"]) == 1
    assert "1 of 1 items rejected" in capsys.readouterr().err
