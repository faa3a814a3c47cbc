"""The command makes a corpus, says so, and refuses what it cannot make."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import starter_corpus
from pipeline.data.starter.settings import StarterSettings
from pipeline.data.starter.write import Corpus

_SILENT_SPEECH = ["--set", "speech_share=0", "--set", "sound_share=1", "--set", "music_share=0"]


def test_it_makes_a_corpus_and_then_finds_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--out", str(tmp_path / "corpus"), "--minutes", "0.5", "--seed", "2"]
    arguments += [*_SILENT_SPEECH, "--processes", "1"]
    assert starter_corpus.main(arguments) == 0
    assert "made: 0 speech clips (0.0 min), " in capsys.readouterr().out
    assert not (tmp_path / "corpus" / "speech").exists()
    assert starter_corpus.main(arguments) == 0
    assert "exists already" in capsys.readouterr().out
    assert starter_corpus.main([*arguments, "--seed", "3"]) == 1
    assert "seed 2 -> 3" in capsys.readouterr().err


@pytest.mark.parametrize("minutes", ["0", "-3"])
def test_no_minutes_are_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], minutes: str
) -> None:
    assert starter_corpus.main(["--out", str(tmp_path / "c"), f"--minutes={minutes}"]) == 1
    assert "'minutes'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_flags_win_over_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[StarterSettings, int]] = []

    def keep(folder: Path, settings: StarterSettings, processes: int) -> Corpus:
        seen.append((settings, processes))
        counts = dict.fromkeys(("speech", "sound", "music"), 1)
        return Corpus(folder, {"clips": counts, "minutes": counts}, was_there=False)

    monkeypatch.setattr(starter_corpus, "write_corpus", keep)
    arguments = ["--out", str(tmp_path), "--minutes", "4", "--set", "minutes=9", "--set", "seed=5"]
    assert starter_corpus.main(arguments) == 0
    assert seen == [(StarterSettings(minutes=4, seed=5), 2)]
