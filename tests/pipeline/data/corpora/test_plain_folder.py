from __future__ import annotations

import pytest

from tests.factories.corpora import read_corpus, write_corpus, write_tone

NAMES = [
    "sp ace.wav",
    "new\nline.wav",
    "tab\tname.wav",
    'quote"name.wav',
    "apos'name.wav",
    "pipe|name.wav",
    "comma,name.wav",
    "semi;colon.wav",
    "-dash.wav",
    "--flag=x.wav",
    "声音_é_ñ.wav",
    "caf\u00e9.wav",
    "cafe\u0301.wav",
    "🎵.wav",
    "UPPER.WAV",
    "upper.wav",
    ".hidden.wav",
    "back\\slash.wav",
    "$(touch x).wav",
    "two.dots.wav",
    "hash#mark.tar#x.wav",
    "percent%20.wav",
    "x" * 240 + ".wav",
    "sub dir/ü/deep.wav",
    "\u202egnp.wav",
]


def test_any_name_is_a_clip_of_its_own(tmp_path):
    folder = write_corpus(tmp_path / "names", dict.fromkeys(NAMES))
    clips, rejects = read_corpus(folder, "folder", default_modality="sound")
    assert sorted(clips) == sorted(NAMES)
    assert {row.uri for row in clips.values()} == {f"{folder}/{name}" for name in NAMES}
    assert rejects == []


def test_without_an_ending_the_contents_decide(tmp_path):
    write_tone(tmp_path / "x.wav").rename(tmp_path / "no_ending")
    write_corpus(tmp_path, {"README": "words"})
    clips, rejects = read_corpus(tmp_path, "folder", default_modality="sound")
    assert list(clips) == ["no_ending"]
    assert rejects == []


def test_without_modality_every_file_is_a_reject_that_says_so(tmp_path):
    write_corpus(tmp_path / "stuff", {"a.wav": None})
    clips, rejects = read_corpus(tmp_path / "stuff", "folder")
    assert clips == {}
    assert [row.reason for row in rejects] == ["missing_modality"]
    assert "set modality" in rejects[0].detail


@pytest.mark.parametrize(
    ("name", "modality"), [("speech", "speech"), ("Music", "music"), ("sfx", "sound")]
)
def test_the_folder_name_may_tell_the_modality(tmp_path, name, modality):
    write_corpus(tmp_path / name / "deep", {"a.wav": None})
    clips, _ = read_corpus(tmp_path / name, "folder")
    assert [row.modality for row in clips.values()] == [modality]
