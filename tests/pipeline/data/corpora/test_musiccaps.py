from __future__ import annotations

import pytest

from pipeline.data.schema import split_of
from tests.factories.corpora import read_corpus, reasons, search, write_corpus

HEADER = "ytid,start_s,end_s,audioset_positive_labels,aspect_list,caption,author_id\n"


def musiccaps(tmp_path, rows):
    write_corpus(tmp_path, {"audio/clip_a.ogg": None, "musiccaps.csv": HEADER + rows})
    clips, rejects = read_corpus(tmp_path, "musiccaps")
    return list(clips.values()), [row for row in rejects if row.reason != "unreferenced"]


def test_captions_aspects_and_the_length_of_the_excerpt(tmp_path):
    text = '"First line.\nSecond, with a comma and a ""quote""."'
    (row,), rejects = musiccaps(tmp_path, f"clip_a,30,40,/m/04,\"['piano', 'sad']\",{text},1\n")
    assert row.modality == "music"
    assert row.captions == ('First line. Second, with a comma and a "quote".',)
    assert row.tags == ("piano", "sad")
    assert (row.start_s, row.end_s, row.declared_duration_s) == (None, None, 10.0)
    assert rejects == []


@pytest.mark.parametrize(
    "aspects", ["\"['piano', 'sad\"", "__import__('pathlib').Path('EVAL_WAS_USED').touch()"]
)
def test_aspects_are_read_never_evaluated(tmp_path, monkeypatch, aspects):
    monkeypatch.chdir(tmp_path)
    (row,), _ = musiccaps(tmp_path, f"clip_a,30,40,/m/04,{aspects},A piano.,1\n")
    assert (row.captions, row.tags) == (("A piano.",), ())
    assert "aspect_list: not a list of strings" in row.notes[0]
    assert not (tmp_path / "EVAL_WAS_USED").exists()


def test_an_empty_caption_falls_back_on_the_aspects(tmp_path):
    (row,), _ = musiccaps(tmp_path, "clip_a,30,40,/m/04,['piano'],,1\n")
    assert (row.captions, row.tags) == ((), ("piano",))
    assert row.notes == ("caption: empty",)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("clip_a,40,30,/m/04,['piano'],A piano.,1", ("bad_span", 2, "start_s, end_s")),
        ("clip_a,nan,inf,/m/04,['piano'],A piano.,1", ("bad_span", 2, "start_s")),
        ("clip_a,-5,5,/m/04,[],A piano.,1", ("bad_span", 2, "start_s, end_s")),
        ("-0Gj8-vB1q4,30,40,/m/04,['piano'],A piano.,1", ("missing_audio", 2, "ytid")),
        ("=SUM(A1),30,40,/m/04,[],x,1", ("missing_audio", 2, "ytid")),
        ("clip_a,30,40,/m/04,[],,1", ("missing_value", 2, "caption, aspect_list")),
    ],
)
def test_bad_rows_are_rejected_with_line_and_column(tmp_path, row, expected):
    clips, rejects = musiccaps(tmp_path, row + "\n")
    assert clips == []
    assert reasons(rejects) == [expected]


def test_excerpts_of_the_audioset_evaluation_set_are_for_testing(tmp_path):
    header = HEADER.strip() + ",is_balanced_subset,is_audioset_eval\n"
    rows = "clip_a,30,40,/m/04,[],A piano.,1,False,{}\n"
    table = header + rows.format("True") + rows.replace("clip_a", "clip_b").format("False")
    write_corpus(tmp_path, {"clip_a.wav": None, "clip_b.wav": None, "musiccaps-public.csv": table})
    (corpus,) = search(tmp_path).corpora
    declared = {row.clip_id[-1]: row.split for row, _ in corpus.clips}
    assert declared["a"] == "test"
    assert declared["b"] == split_of(f"{tmp_path.name}/clip_b", 0.1, 0.1)
