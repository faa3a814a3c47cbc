from __future__ import annotations

import json

import pytest

from pipeline.audio.files import read_audio
from tests.factories.corpora import read_corpus, reasons, write_corpus, write_tar

ID = "DE_B00000_S00000_W000029"


def record(key=ID, **more):
    facts = {
        "id": key,
        "wav": f"DE_B00000/DE_B00000_S00000/mp3/{key}.mp3",
        "text": " Und es gibt auch einen Stadtplan.",
        "duration": 0.4,
        "speaker": "DE_B00000_S00000",
        "language": "de",
        "dnsmos": 3.3697,
    }
    return json.dumps(facts | more)


def check(row, corpus):
    assert row.transcript == "Und es gibt auch einen Stadtplan."
    assert (row.language, row.speaker) == ("de", f"{corpus}/DE_B00000_S00000")
    assert (row.modality, row.licence, row.declared_duration_s) == ("speech", "CC-BY-NC-4.0", 0.4)
    assert row.notes == ("dnsmos: 3.37 by the corpus's own estimate",)


def test_tars_as_the_hub_holds_them(tmp_path):
    members = {f"{ID}.mp3": None, f"{ID}.json": record(phone_count=30)}
    write_tar(tmp_path / "Emilia" / "DE" / "DE-B000000.tar", members)
    clips, rejects = read_corpus(tmp_path / "Emilia", "emilia")
    check(clips[ID], "DE")
    assert read_audio(clips[ID].uri).sample_rate == 8_000
    assert rejects == []


def test_lines_with_a_tree_of_audio(tmp_path):
    files = {
        "raw/DE/DE_B00000.jsonl": record() + "\n",
        f"raw/DE/DE_B00000/DE_B00000_S00000/mp3/{ID}.mp3": None,
    }
    clips, rejects = read_corpus(write_corpus(tmp_path, files), "emilia")
    check(clips[ID], "raw-DE")
    assert rejects == []


def test_pairs_in_a_folder(tmp_path):
    files = {f"{ID}.mp3": None, f"{ID}.json": record()}
    clips, rejects = read_corpus(write_corpus(tmp_path / "DE", files), "emilia")
    check(clips[ID], "DE")
    assert rejects == []


@pytest.mark.parametrize(
    ("folder", "key", "licence"),
    [
        ("Emilia-YODAS", "DE_hyM91yW0JLE_W000001", "CC-BY-4.0"),
        ("Emilia", "DE_hyM91yW0JLE_W000001", "CC-BY-NC-4.0"),
        ("tars", "DE_hyM91yW0JLE_W000001", None),
    ],
)
def test_the_licence_is_that_of_the_part(tmp_path, folder, key, licence):
    members = {f"{key}.mp3": None, f"{key}.json": record(key)}
    write_tar(tmp_path / folder / "DE" / "DE-B000000.tar", members)
    clips, _ = read_corpus(tmp_path / folder / "DE", "emilia")
    assert clips[key].licence is None  # the input's own name says nothing
    write_tar(tmp_path / "above" / folder / "DE" / "DE-B000000.tar", members)
    clips, _ = read_corpus(tmp_path / "above", "emilia")
    assert clips[key].licence == licence


def test_bad_records_are_rejects(tmp_path):
    lines = [record(), "{", record("DE_B00000_S00000_W000030"), record(text=" ")]
    files = {
        "DE_B00000.jsonl": "\n".join(lines),
        f"DE_B00000/DE_B00000_S00000/mp3/{ID}.mp3": None,
        "x.json": record(),
        "y.json": "[]",
    }
    clips, rejects = read_corpus(write_corpus(tmp_path, files), "emilia")
    assert list(clips) == [ID]
    assert reasons(rejects) == [
        ("malformed", 2, None),
        ("missing_audio", 3, "wav"),
        ("missing_value", 4, "text"),
        ("missing_audio", None, None),
        ("malformed", None, None),
    ]
