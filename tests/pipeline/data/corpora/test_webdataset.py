from __future__ import annotations

import io
import tarfile

import fsspec
import pytest

from pipeline.audio.files import read_audio
from tests.factories.corpora import (
    read_corpus,
    reasons,
    search,
    write_corpus,
    write_tar,
    write_tone,
)


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


def test_bad_samples_and_tars_are_rejects(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.data.corpora.webdataset.MAX_JSON_BYTES", 2**20)
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


def caption(text):
    return f'{{"caption": "{text}"}}'


def test_keys_with_dots_are_samples_of_their_own(tmp_path):
    members = {}
    for number in range(5):
        members |= {f"./talk.v1.{number}.wav": None, f"./talk.v1.{number}.json": caption(number)}
    write_tar(tmp_path / "sound" / "d.tar", members)
    clips, rejects = read_corpus(tmp_path / "sound", "webdataset")
    assert {key: row.captions for key, row in clips.items()} == {
        f"d/./talk.v1.{number}": (str(number),) for number in range(5)
    }
    assert rejects == []


def test_one_dotted_sample_keeps_its_plain_key(tmp_path):
    write_tar(tmp_path / "sound" / "d.tar", {"a.0.wav": None, "a.0.json": caption("x")})
    clips, _ = read_corpus(tmp_path / "sound", "webdataset")
    assert list(clips) == ["d/a"]


@pytest.mark.parametrize(
    ("members", "kept", "refused"),
    [
        (["a.wav", "a.flac", "a.json"], {"d/a": "a.wav"}, [("conflict", "a.flac")]),
        (["a.0.wav", "a.1.wav", "a.json"], {"d/a": "a.0.wav"}, [("conflict", "a.1.wav")]),
        (["a.wav", "a.vocals.wav", "a.json"], {"d/a": "a.wav"}, [("unreferenced", "a.vocals.wav")]),
        (["a.wav", "a.wav", "a.json"], {"d/a": "a.wav"}, [("conflict", "a.wav")]),
        (["a.wav", "a.words.json", "a.tags.json"], {}, [("conflict", "a.wav")]),
        (["a.wav", "a.json", "a.words.json"], {"d/a": "a.wav"}, []),
        (["a.0.wav", "a.0.json", "a.1.wav"], {"d/a.0": "a.0.wav"}, [("unreferenced", "a.1.wav")]),
        (["a.0.json", "a.1.json"], {}, [("missing_audio", "a.0.json")]),
        ([".hidden.wav", ".hidden.json"], {"d/.hidden": ".hidden.wav"}, []),
    ],
    ids=str,
)
def test_a_second_audio_or_record_of_a_key_is_counted(tmp_path, members, kept, refused):
    path = tmp_path / "sound" / "d.tar"
    write_tar(path, {"ok.wav": None, "ok.json": caption("fine")})
    with tarfile.open(path, "a") as archive:
        for number, name in enumerate(members):
            payload = caption(number).encode()
            if not name.endswith(".json"):
                file = tmp_path / f"{number}{name[-5:]}"
                payload = write_tone(file, seed=number).read_bytes()
            member = tarfile.TarInfo(name)
            member.size = len(payload)
            archive.addfile(member, io.BytesIO(payload))
    clips, rejects = read_corpus(tmp_path / "sound", "webdataset")
    clips.pop("d/ok")
    assert {key: row.uri.partition("#")[2] for key, row in clips.items()} == kept
    assert [(row.reason, row.uri.partition("#")[2]) for row in rejects] == refused


def test_an_extra_record_is_noted_on_the_clip(tmp_path):
    members = {"a.wav": None, "a.json": caption("x"), "a.words.json": "[]"}
    write_tar(tmp_path / "sound" / "d.tar", members)
    clips, _ = read_corpus(tmp_path / "sound", "webdataset")
    assert clips["d/a"].notes == ("json: 'a.words.json' not read",)


def test_companions_of_a_mac_in_a_tar_are_ignored_and_counted(tmp_path):
    members = {"a.wav": None, "a.json": caption("x")}
    members |= {"._a.wav": b"\0\5\x16\7", "._a.json": b"\0\5\x16\7", "__MACOSX/._a.wav": b"x"}
    write_tar(tmp_path / "sound" / "d.tar", members)
    discovery = search(tmp_path)
    (corpus,) = discovery.corpora
    assert (len(corpus.clips), list(corpus.rejects)) == (1, [])
    assert discovery.ignored == {"._*": 2, "__MACOSX/": 1}
