from __future__ import annotations

import pytest

from pipeline.data.corpora.base import CorpusFacts, CorpusFolder, Place
from pipeline.data.corpora.entries import (
    CaptionGroups,
    Entry,
    cell_lines,
    json_line_entries,
    json_objects,
    read_text,
    rejecting,
    table_entries,
)
from pipeline.data.corpora.listing import walk
from pipeline.data.corpora.manifests import ManifestError
from pipeline.data.schema import Reject
from pipeline.storage import Folder
from tests.factories.corpora import write_corpus


@pytest.fixture
def corpus(tmp_path):
    def make(files):
        listing = walk(Folder.at(write_corpus(tmp_path, files)))
        return CorpusFolder(listing, "", "c", CorpusFacts())

    return make


def seen(items):
    """Values of entries; reason, line and field of rejects."""
    return [
        (item.reason, item.line, item.field) if isinstance(item, Reject) else item.values
        for item in items
    ]


def test_rows_of_a_table_and_what_is_wrong_with_the_others(corpus):
    folder = corpus({"t.csv": b'a,b\n1,"x, y"\n2\n\xff,3\n'})
    assert seen(table_entries(folder, "t.csv", ("a",))) == [
        {"a": "1", "b": "x, y"},
        ("malformed", 3, None),
        ("encoding", 4, None),
    ]


def test_quotes_are_letters_where_the_publisher_writes_them_so(corpus):
    folder = corpus({"t.tsv": 'a\tb\n1\t"open\n'})
    entries = table_entries(folder, "t.tsv", delimiter="\t", is_quoted=False)
    assert seen(entries) == [{"a": "1", "b": '"open'}]


def test_a_declared_encoding_is_only_used_for_what_is_not_utf8(corpus):
    folder = corpus({"old.csv": "a\ncaf\xe9\n".encode("latin-1"), "new.csv": "a\ncaf\xe9\n"})
    for name in ("old.csv", "new.csv"):
        assert seen(table_entries(folder, name, encoding="iso-8859-1")) == [{"a": "caf\xe9"}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("x,y\n1,2\n", ("missing_column", 1, "a")), ("", ("empty_manifest", None, None))],
)
def test_a_table_that_cannot_be_read_is_one_reject(corpus, text, expected):
    assert seen(table_entries(corpus({"t.csv": text}), "t.csv", ("a",))) == [expected]


def test_json_lines(corpus):
    folder = corpus({"t.jsonl": '{"a": 1}\n\n3\n{"a": 1, "a": 2}\n{\n'})
    assert seen(json_line_entries(folder, "t.jsonl")) == [
        {"a": 1},
        ("malformed", 3, None),
        ("conflict", 4, "a"),
        ("malformed", 5, None),
    ]


def test_objects_of_a_json_file(corpus):
    folder = corpus(
        {"a.json": '{"data": [{"x": 1}, 2]}', "b.json": '{"k": {"x": 3}}', "c.json": "1"}
    )
    assert next(iter(json_objects(folder, "a.json", "data"))) == ("0", {"x": 1})
    assert seen(list(json_objects(folder, "a.json", "data"))[1:]) == [("malformed", None, "1")]
    assert list(json_objects(folder, "b.json")) == [("k", {"x": 3})]
    assert seen(json_objects(folder, "b.json", "data")) == [("malformed", None, "data")]
    assert seen(json_objects(folder, "c.json")) == [("malformed", None, None)]


def test_lines_of_cells_and_small_texts(corpus):
    folder = corpus({"t.txt": "a|b\n\nc\n", "good": "\ufeffx", "bad": b"\xff"})
    assert [line.cells for line in cell_lines(folder, "t.txt", "|")] == [("a", "b"), ("c",)]
    assert read_text(folder, "good") == "x"
    assert seen([read_text(folder, "bad")]) == [("encoding", None, None)]


def test_captions_of_one_file_are_gathered_without_repeats(corpus):
    folder = corpus({"a.wav": None, "b.wav": None})
    groups = CaptionGroups(folder, "sound")
    for line, (audio, caption) in enumerate([("b", "B."), ("a", "A."), ("b", "C."), ("b", "B.")]):
        groups.add(audio, f"{audio}.wav", Place("t.csv", line), caption, split="test")
    clips = list(groups.clips())
    assert [clip.captions for clip in clips] == [("B.", "C."), ("A.",)]
    assert {clip.split for clip in clips} == {"test"}


def test_audio_is_found_by_the_first_name_that_there_is(corpus):
    folder = corpus({"x/1.wav": None, "y/1.wav": None, "x/2.low.mp3": None})
    assert folder.find_named(["2", "2.low"]) == "x/2.low.mp3"
    assert folder.find_named(["1"], within="y") == "y/1.wav"
    for stems, within, reason in ((["1"], "", "ambiguous_audio"), (["3"], "x", "missing_audio")):
        with pytest.raises(ManifestError) as caught:
            folder.find_named(stems, within)
        assert caught.value.reason == reason


def test_entries_say_where_they_stand(corpus):
    (entry,) = table_entries(corpus({"t.csv": "a\n\n1\n"}), "t.csv")
    assert isinstance(entry, Entry)
    assert str(entry.place) == "t.csv line 3"


def test_what_an_entry_raises_is_its_reject_with_manifest_line_and_column(corpus):
    folder = corpus({"t.csv": "path\nnone\n", "a.wav": None})
    find = rejecting(lambda folder, place, name: folder.find_audio(name, field="path")[0])
    assert find(folder, Place("t.csv", 2), "a") == "a.wav"
    found = find(folder, Place("t.csv", 2), "none")
    assert (found.reason, found.line, found.field) == ("missing_audio", 2, "path")
    assert found.uri == folder.uri("t.csv")
    assert "'none'" in found.detail
