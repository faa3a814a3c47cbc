from __future__ import annotations

import pytest

from tests.factories.corpora import read_corpus, reasons, write_corpus

HEADER = "filename,fold,target,category,esc10,src_file,take\n"
GOOD = "1-100032-A-0.ogg,1,0,dog,True,100032,A\n"


def esc(tmp_path, table):
    write_corpus(tmp_path, {"audio/1-100032-A-0.ogg": None, "meta/esc50.csv": table})
    clips, rejects = read_corpus(tmp_path, "esc50")
    return list(clips.values()), [row for row in rejects if row.reason != "unreferenced"]


@pytest.mark.parametrize(
    "table",
    [HEADER + GOOD, "\ufeff" + HEADER + GOOD, (HEADER + GOOD).replace(",", ";")],
    ids=["plain", "bom", "semicolon"],
)
def test_the_category_is_a_tag_of_a_sound(tmp_path, table):
    (row,), rejects = esc(tmp_path, table)
    assert (row.modality, row.tags, row.licence) == ("sound", ("dog",), "CC-BY-3.0")
    assert rejects == []


def test_the_rest_of_the_published_set_is_not_for_commercial_use(tmp_path):
    (row,), _ = esc(tmp_path, HEADER + GOOD.replace("True", "False"))
    assert row.licence == "CC-BY-NC-3.0"


def test_a_class_table_of_ones_own_may_add_captions_and_claims_no_licence(tmp_path):
    table = "filename,category,caption\n1-100032-A-0.ogg,sea_waves,Waves on a shore.\n"
    (row,), _ = esc(tmp_path, table)
    assert (row.tags, row.captions) == (("sea waves",), ("Waves on a shore.",))
    assert row.licence is None


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("filename,fold,target\n1-100032-A-0.ogg,1,0\n", ("missing_column", 1, "category")),
        (HEADER + GOOD.replace(",1,0,", ",one,zero,"), ("malformed", 2, "fold")),
        (HEADER + "1-100032-A-0.ogg,1,0\n", ("malformed", 2, None)),
        (HEADER + GOOD.replace("dog", ""), ("missing_value", 2, "category")),
        (HEADER + GOOD.replace("1-1", "2-1"), ("missing_audio", 2, "filename")),
    ],
)
def test_bad_rows_are_rejected_with_line_and_column(tmp_path, table, expected):
    clips, rejects = esc(tmp_path, table)
    assert clips == []
    assert reasons(rejects) == [expected]


def test_one_file_with_two_labels_is_a_conflict(tmp_path):
    clips, rejects = esc(tmp_path, HEADER + GOOD + GOOD.replace("dog", "rooster"))
    assert [row.tags for row in clips] == [("dog",)]
    assert reasons(rejects) == [("conflict", 3, None)]


def test_a_quote_that_never_closes_costs_its_own_row_only(tmp_path):
    clips, rejects = esc(tmp_path, HEADER + GOOD.replace("dog", '"dog') + GOOD)
    assert [row.tags for row in clips] == [("dog",)]
    assert reasons(rejects) == [("malformed", 2, None)]


def test_another_ending_is_resolved_and_said(tmp_path):
    (row,), rejects = esc(tmp_path, HEADER + GOOD.replace(".ogg", ".wav"))
    assert row.uri.endswith("audio/1-100032-A-0.ogg")
    assert row.notes == ("file: '1-100032-A-0.wav' is 'audio/1-100032-A-0.ogg' on disk",)
    assert rejects == []
