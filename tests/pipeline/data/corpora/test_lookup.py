from __future__ import annotations

import pytest

from pipeline.data.corpora.file_table import FileFact, FileTable
from pipeline.data.corpora.lookup import AudioIndex
from pipeline.data.corpora.manifests import ManifestError

NAMES = [
    "audio/a.wav",
    "audio/deep/b.flac",
    "cafe\u0301.ogg",
    "clips/c.mp3",
    "d.flac",
    "d.wav",
    "two.dots.wav",
]


def index_of(names, uri):
    files = FileTable((name, FileFact(0, 0)) for name in names)
    return AudioIndex(files.names(), uri)


@pytest.fixture
def index():
    return index_of(NAMES, "/corpus")


@pytest.mark.parametrize(
    ("reference", "near", "name", "is_noted"),
    [
        ("audio/a.wav", "", "audio/a.wav", False),
        ("./audio/../audio/a.wav", "", "audio/a.wav", False),
        ("a.wav", "", "audio/a.wav", False),
        ("a", "", "audio/a.wav", False),
        ("../audio/a.wav", "meta", "audio/a.wav", False),
        ("/corpus/audio/a.wav", "", "audio/a.wav", False),
        ("deep/b", "", "audio/deep/b.flac", False),
        ("two.dots", "", "two.dots.wav", False),
        (" a.wav ", "", "audio/a.wav", False),
        ("audio\\a.wav", "", "audio/a.wav", False),
        ("c.wav", "", "clips/c.mp3", True),
        ("caf\u00e9.ogg", "", "cafe\u0301.ogg", True),
        ("d.wav", "", "d.wav", False),
    ],
)
def test_a_reference_finds_its_file(index, reference, near, name, is_noted):
    found, note = index.find(reference, near)
    assert found == name
    assert (note is not None) == is_noted


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("", "missing_value"),
        ("A.wav", "missing_audio"),
        ("z.wav", "missing_audio"),
        ("d", "ambiguous_audio"),
        ("../a.wav", "outside_corpus"),
        ("audio/../../a.wav", "outside_corpus"),
        ("/etc/passwd", "outside_corpus"),
        ("/corpus-too/audio/b.wav", "outside_corpus"),
        ("/old/deep/b.flac", "outside_corpus"),
        ("https://host/a.wav", "outside_corpus"),
    ],
)
def test_a_reference_that_is_none_says_why(index, reference, reason):
    with pytest.raises(ManifestError) as caught:
        index.find(reference)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("reference", "name", "folder"),
    [
        ("/old/root/audio/a.wav", "audio/a.wav", "/old/root"),
        ("/old/root/audio/deep/b.flac", "audio/deep/b.flac", "/old/root"),
        ("/old/root/audio/a", "audio/a.wav", "/old/root"),
        ("/old/root/clips/c.wav", "clips/c.mp3", "/old/root"),
        ("/old/./x/../root/audio/a.wav", "audio/a.wav", "/old/./x/../root"),
        ("C:\\data\\audio\\a.wav", "audio/a.wav", "C:/data"),
        ("D:/data/audio/a.wav", "audio/a.wav", "D:/data"),
        ("\\\\server\\share\\audio\\a.wav", "audio/a.wav", "//server/share"),
        ("file:///old%20root/audio/a.wav", "audio/a.wav", "/old root"),
        ("s3://bucket/root/audio/a.wav", "audio/a.wav", "s3://bucket/root"),
        ("~/data/audio/a.wav", "audio/a.wav", "~/data"),
        ("/old/root/two.dots.wav", "two.dots.wav", "/old/root"),
        ("/old/root/caf\u00e9.ogg", "cafe\u0301.ogg", "/old/root"),
    ],
)
def test_an_absolute_path_of_a_moved_corpus_is_found_by_its_end(index, reference, name, folder):
    assert index.find(reference)[0] == name
    assert dict(index.moved) == {folder: 1}


def test_where_all_audio_lies_in_one_folder_its_name_may_have_changed():
    index = index_of(["data/wavs/x/1.wav", "data/wavs/y/2.wav", "m.csv"], "/corpus")
    assert index.find("/old/clips/x/1.wav")[0] == "data/wavs/x/1.wav"
    with pytest.raises(ManifestError):
        index.find("/old/clips/z/2.wav")


def test_what_is_missing_of_a_moved_corpus_is_missing_and_not_another_file():
    index = index_of(["ann/1.wav", "bob/1.wav", "bob/2.wav"], "/corpus")
    assert index.find("/old/ann/1.wav")[0] == "ann/1.wav"
    with pytest.raises(ManifestError) as caught:
        index.find("/old/ann/2.wav")
    assert caught.value.reason == "missing_audio"


def test_two_paths_with_one_last_part_are_not_taken_for_one_file():
    index = index_of(["1.wav", "2.wav"], "/corpus")
    assert index.find("/old/ann/1.wav")[0] == "1.wav"
    assert index.find("/old/ann/1.wav")[0] == "1.wav"
    with pytest.raises(ManifestError, match="share nothing but their last part") as caught:
        index.find("/old/bob/1.wav")
    assert caught.value.reason == "ambiguous_audio"


def test_two_manifests_of_one_moved_folder_may_name_it_differently():
    index = index_of(["wavs/1.wav"], "/corpus")
    assert index.find("/home/a/wavs/1.wav")[0] == index.find("/home/b/wavs/1.wav")[0]


def test_the_real_path_of_a_linked_corpus_is_inside_it(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    index = index_of(["a.wav"], str(tmp_path / "link"))
    assert index.find(f"{tmp_path}/real/a.wav") == ("a.wav", None)
    assert not index.moved
