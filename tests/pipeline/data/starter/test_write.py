"""The corpus on disk: three layouts, true counts, same bytes again, complete or not there."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import yaml

from pipeline.data.starter import write
from pipeline.data.starter.music.styles import STYLES
from pipeline.data.starter.open_sentences import read_sentences
from pipeline.data.starter.settings import SpeechSettings, StarterSettings
from pipeline.data.starter.sounds.scene import CLASSES
from pipeline.data.starter.voices import SPEAKERS
from pipeline.data.starter.write import Corpus, CorpusError, contents_digest, table, write_corpus
from tests.factories.corpora import search


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _audio(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in (".wav", ".flac"))


def test_speech_is_a_table_for_each_kind_beside_its_files(minute_corpus: Corpus) -> None:
    folders = sorted(path for path in (minute_corpus.folder / "speech").iterdir() if path.is_dir())
    assert {folder.name for folder in folders} <= set(StarterSettings().speech.kinds)
    assert len(folders) > 3
    speakers = {speaker.name: speaker for speaker in SPEAKERS}
    for folder in folders:
        rows = _rows(folder / "metadata.csv")
        assert ",".join(rows[0]) == ("file,transcript,language,speaker,sex,style,captions,licence")
        assert {row["file"] for row in rows} == {path.name for path in folder.glob("*.wav")}
        for row in rows:
            speaker = speakers[row["speaker"]]
            assert (row["language"], row["sex"]) == (speaker.language, speaker.sex)
            assert row["transcript"].strip() == row["transcript"] != ""
            assert row["licence"] == "CC0-1.0"
            assert len(json.loads(row["captions"])) == 2
            info = sf.info(folder / row["file"])
            assert (info.samplerate, info.channels, info.subtype) == (22_050, 1, "PCM_16")


def test_ingest_reads_each_kind_as_a_corpus_with_all_its_labels(minute_corpus: Corpus) -> None:
    found = search(minute_corpus.folder)
    corpora = {corpus.name: corpus for corpus in found.corpora}
    assert not any(len(corpus.rejects) for corpus in found.corpora)
    assert {"sound", "music", "speech-digit", "speech-sentence"} <= set(corpora)
    for name, corpus in corpora.items():
        assert all(2 <= len(row.captions) <= 10 for row, _ in corpus.clips)
        if name.startswith("speech-"):
            for row, _ in corpus.clips:
                assert len(row.captions) == 2
                assert row.modality == "speech"
                assert row.transcript
                assert "voice" in row.tags[0]
                assert row.licence == "CC0-1.0"


def test_sound_is_a_class_table_over_its_files(minute_corpus: Corpus) -> None:
    folder = minute_corpus.folder / "sound"
    rows = _rows(folder / "classes.csv")
    assert tuple(rows[0]) == ("filename", "category", "captions", "fold")
    assert {row["filename"] for row in rows} == {p.name for p in (folder / "audio").iterdir()}
    for row in rows:
        assert set(row["category"].split("|")) <= set(CLASSES)
        assert 1 <= int(row["fold"]) <= 5
        assert all(
            CLASSES[name].keyword in row["captions"].lower() for name in row["category"].split("|")
        )
        assert sf.info(folder / "audio" / row["filename"]).samplerate == 44_100


def test_music_is_a_file_and_its_labels_beside_it(minute_corpus: Corpus) -> None:
    folder = minute_corpus.folder / "music"
    stems = {path.stem for path in folder.glob("*.flac")}
    assert stems == {path.stem for path in folder.glob("*.json")}
    for stem in stems:
        labels = json.loads((folder / f"{stem}.json").read_text(encoding="utf-8"))
        info = sf.info(folder / f"{stem}.flac")
        assert labels["duration_s"] == pytest.approx(info.duration, abs=0.001)
        assert labels["style"] in STYLES
        assert (info.samplerate, info.channels, info.subtype) == (44_100, 2, "PCM_16")


def test_minutes_and_shares_are_met(minute_corpus: Corpus) -> None:
    seconds = {
        name: sum(sf.info(path).duration for path in _audio(minute_corpus.folder / name))
        for name in ("speech", "sound", "music")
    }
    assert sum(seconds.values()) == pytest.approx(60, rel=0.05)
    assert seconds == pytest.approx({"speech": 24, "sound": 18, "music": 18}, rel=0.05)
    stated = minute_corpus.card["minutes"]
    assert {name: 60 * stated[name] for name in stated} == pytest.approx(seconds, abs=0.01)


def test_every_clip_is_audible_finite_and_not_clipped(minute_corpus: Corpus) -> None:
    for path in _audio(minute_corpus.folder):
        wave, _ = sf.read(path)
        assert np.isfinite(wave).all()
        assert 0.01 < np.abs(wave).max() < 0.999, path.name


def test_card_readme_and_licence(minute_corpus: Corpus) -> None:
    folder = minute_corpus.folder
    card = yaml.safe_load((folder / "corpus.yaml").read_text(encoding="utf-8"))
    assert card == minute_corpus.card
    assert card["license"] == "CC0-1.0"
    assert card["clips"] == {name: len(_audio(folder / name)) for name in card["clips"]}
    assert "CC0-1.0" in (folder / "README.md").read_text(encoding="utf-8")
    for name in ("", "speech", "speech/digit", "sound", "music"):
        text = (folder / name / "LICENSE").read_text(encoding="utf-8")
        assert "creativecommons.org/publicdomain/zero/1.0" in text


@pytest.mark.slow
def test_the_same_settings_give_the_same_bytes(
    minute_corpus: Corpus, minute_settings: StarterSettings, tmp_path: Path
) -> None:
    again = write_corpus(tmp_path / "again", minute_settings, processes=2)
    assert again.card == minute_corpus.card
    names = [p.relative_to(again.folder) for p in again.folder.rglob("*") if p.is_file()]
    assert len(names) > 30
    for name in names:
        assert (again.folder / name).read_bytes() == (minute_corpus.folder / name).read_bytes()
    assert contents_digest(again.folder) == again.card["contents_sha256"]


def test_another_seed_gives_another_corpus(minute_corpus: Corpus, tmp_path: Path) -> None:
    other = write_corpus(tmp_path / "other", StarterSettings(minutes=0.5, seed=4), processes=1)
    assert sum(other.card["minutes"].values()) == pytest.approx(0.5, rel=0.05)
    assert other.card["contents_sha256"] != minute_corpus.card["contents_sha256"]


def test_running_again_touches_nothing(
    minute_corpus: Corpus, minute_settings: StarterSettings
) -> None:
    before = {path: path.stat().st_mtime_ns for path in minute_corpus.folder.rglob("*")}
    again = write_corpus(minute_corpus.folder, minute_settings)
    assert again.was_there
    assert again.card == minute_corpus.card
    assert {p: p.stat().st_mtime_ns for p in minute_corpus.folder.rglob("*")} == before


def test_other_settings_in_the_same_place_are_an_error(
    minute_corpus: Corpus, minute_settings: StarterSettings
) -> None:
    other = minute_settings.model_copy(update={"seed": 9})
    with pytest.raises(CorpusError, match=r"other settings.*seed 3 -> 9"):
        write_corpus(minute_corpus.folder, other)


def _foreign(folder: Path) -> None:
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")


def _file(folder: Path) -> None:
    folder.write_text("mine")


def _bad_card(folder: Path) -> None:
    folder.mkdir()
    (folder / "corpus.yaml").write_text("[1, 2]")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [(_foreign, "is not empty"), (_file, "is a file"), (_bad_card, "not the card")],
)
def test_a_folder_of_other_files_is_refused_and_unchanged(
    tmp_path: Path, prepare: Callable[[Path], None], message: str
) -> None:
    folder = tmp_path / "out"
    prepare(folder)
    with pytest.raises(CorpusError, match=message):
        write_corpus(folder, StarterSettings(minutes=0.5))
    assert os.listdir(tmp_path) == ["out"]


def test_a_corpus_with_missing_audio_is_noticed(tmp_path: Path) -> None:
    settings = StarterSettings(minutes=0.5)
    card = {
        "version": write.VERSION,
        "settings": settings.model_dump(mode="json"),
        "clips": {"speech": 3},
    }
    (tmp_path / "corpus.yaml").write_text(yaml.safe_dump(card))
    with pytest.raises(CorpusError, match="0 audio files of 3"):
        write_corpus(tmp_path, settings)


def test_a_text_of_the_user_keeps_its_licence_and_is_remembered(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The lamp is on.\nIs it late?\nWe were early.\n")
    speech = SpeechSettings(
        kinds={"open": 1}, languages={"en": 1}, sentences=text, sentences_licence="CC-BY-4.0"
    )
    settings = StarterSettings(
        minutes=0.5, speech_share=1, sound_share=0, music_share=0, speech=speech
    )
    corpus = write_corpus(tmp_path / "out", settings, processes=1)
    assert {row["licence"] for row in _rows(tmp_path / "out/speech/open/metadata.csv")} == {
        "CC-BY-4.0"
    }
    assert corpus.card["license"] == "CC0-1.0 AND CC-BY-4.0"
    assert "(CC-BY-4.0) applies" in (tmp_path / "out/speech/open/LICENSE").read_text()
    assert write_corpus(tmp_path / "out", settings).was_there
    text.write_text("The lamp is off.\n")
    read_sentences.cache_clear()
    with pytest.raises(CorpusError, match="sentences_sha256"):
        write_corpus(tmp_path / "out", settings)


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path, settings: StarterSettings, processes: int) -> None:
        (folder / "speech" / "half.wav").write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(write, "_perform_all", fail)
    with pytest.raises(OSError, match="disk full"):
        write_corpus(tmp_path / "out", StarterSettings(minutes=0.5))
    assert os.listdir(tmp_path) == []


def test_no_process_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="processes is 0"):
        write_corpus(tmp_path / "out", StarterSettings(minutes=0.5), processes=0)


def test_cells_are_quoted_where_needed() -> None:
    payload = table(("file", "text"), [("a.wav", 'Hello, "you"'), ("b.wav", "ñ")])
    assert payload.decode() == 'file,text\na.wav,"Hello, ""you"""\nb.wav,ñ\n'
