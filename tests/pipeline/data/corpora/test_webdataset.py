from __future__ import annotations

import fsspec
import pytest

from pipeline.audio_io import read_audio
from tests.factories.corpora import read_corpus, reasons, search, write_corpus, write_tar


def test_members_of_one_name_are_a_clip_that_can_be_decoded(tmp_path):
    members = {
        "a.flac": None,
        "a.json": '{"text": ["A dog barks.", "Barking."], "tag": ["dog"], "split": "test"}',
        "deep/b.0.mp3": None,
        "deep/b.0.json": '{"caption": "Rain.", "filename": "/home/me/b.wav", "license": "CC0-1.0"}',
        "notes.txt": "x",
    }
    write_tar(tmp_path / "sound" / "train-000.tar", members)
    clips, rejects = read_corpus(tmp_path / "sound", "webdataset")
    dog, rain = clips["train-000/a"], clips["train-000/deep/b"]
    assert (dog.captions, dog.tags, dog.split) == (("A dog barks.", "Barking."), ("dog",), "test")
    assert (rain.captions, rain.licence, rain.split) == (("Rain.",), "CC0-1.0", "train")
    assert dog.uri == f"{tmp_path}/sound/train-000.tar#a.flac"
    assert read_audio(dog.uri).waveform.shape == (1, 3_200)
    assert rejects == []


def test_samples_of_several_tars_may_share_a_key(tmp_path):
    record = '{"transcript": "hello", "language": "en", "speaker": "ann"}'
    for name in ("shard-0.tar", "shard-1.tar"):
        write_tar(tmp_path / "speech" / name, {"0001.wav": None, "0001.json": record})
    clips, rejects = read_corpus(tmp_path / "speech", "webdataset")
    assert sorted(clips) == ["shard-0/0001", "shard-1/0001"]
    assert clips["shard-0/0001"].speaker == "speech/ann"
    assert rejects == []


def test_bad_samples_and_tars_are_rejects(tmp_path):
    members = {
        "a.wav": None,
        "a.json": '{"caption": "Good."}',
        "b.wav": None,
        "c.json": '{"caption": "No audio."}',
        "d.wav": None,
        "d.json": "[1]",
        "e.wav": None,
        "e.json": '{"caption": "x", "caption": "y"}',
        "f.wav": None,
        "f.json": '{"caption": "' + "x" * 2**20 + '"}',
        "g.wav": None,
        "g.json": '{"caption": ""}',
    }
    folder = tmp_path / "sound"
    write_tar(folder / "a.tar", members)
    write_corpus(folder, {"broken.tar": b"no tar" * 300})
    clips, rejects = read_corpus(folder, "webdataset")
    assert list(clips) == ["a/a"]
    assert reasons(rejects) == [
        ("unreferenced", None, None),
        ("missing_audio", None, None),
        ("malformed", None, None),
        ("conflict", None, "caption"),
        ("malformed", None, None),
        ("missing_value", None, "caption"),
        ("malformed", None, None),
    ]
    assert rejects[1].uri == f"{folder}/a.tar#c.json"


@pytest.mark.parametrize("members", [{"a.wav": None}, {"a.json": "{}"}, {"a.npy": b"x"}])
def test_other_tars_are_left_alone(tmp_path, members):
    write_tar(tmp_path / "x.tar", members)
    assert search(tmp_path).corpora == []


def test_tars_on_another_file_system(tmp_path):
    write_tar(tmp_path / "a b.tar", {"é.wav": None, "é.json": '{"caption": "Rain."}'})
    memory = fsspec.filesystem("memory")
    memory.pipe({"/tars/sound/a b.tar": (tmp_path / "a b.tar").read_bytes()})
    (corpus,) = search("memory://tars").corpora
    ((row, fact),) = corpus.clips
    assert row.uri == "memory://tars/sound/a%20b.tar#é.wav"
    assert fact.size_bytes == (tmp_path / "a b.tar").stat().st_size
    assert read_audio(row.uri).waveform.shape == (1, 3_200)
