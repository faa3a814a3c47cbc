from __future__ import annotations

import pytest

from tests.factories.corpora import read_corpus, reasons, search, write_corpus

AUDIO = {f"wavs/LJ001-000{n}.wav": None for n in (1, 2, 3)}


def lj(tmp_path, table):
    write_corpus(tmp_path, AUDIO | {"metadata.csv": table})
    clips, rejects = read_corpus(tmp_path, "ljspeech")
    return clips, [row for row in rejects if row.reason != "unreferenced"]


def test_the_normalised_text_is_the_transcript(tmp_path):
    clips, rejects = lj(tmp_path, "LJ001-0001|In 1456|In fourteen fifty-six\n")
    row = clips["LJ001-0001"]
    assert row.transcript == "In fourteen fifty-six"
    assert (row.language, row.speaker_sex) == ("en", "female")
    assert row.licence == "LicenseRef-public-domain"
    assert rejects == []


def test_ids_of_other_corpora_claim_neither_language_nor_licence(tmp_path):
    write_corpus(tmp_path, {"wavs/a.wav": None, "metadata.csv": "a|ja, sicher\n"})
    clips, _ = read_corpus(tmp_path, "ljspeech", default_language="de")
    assert (clips["a"].language, clips["a"].licence) == ("de", None)
    assert clips["a"].transcript == "ja, sicher"


@pytest.mark.parametrize(
    "table",
    [
        b"\xef\xbb\xbfLJ001-0001|one|one\r\nLJ001-0002|two|two\r\n",
        b"LJ001-0001|one|one\nLJ001-0002|two|two",
        b'LJ001-0001|He said "go|He said "go\nLJ001-0002|and "went" away"|and "went" away"\n',
    ],
    ids=["bom and crlf", "no final newline", "lone quotes"],
)
def test_unusual_tables_give_two_clips(tmp_path, table):
    clips, rejects = lj(tmp_path, table)
    assert sorted(clips) == ["LJ001-0001", "LJ001-0002"]
    assert rejects == []


@pytest.mark.parametrize(
    ("second_line", "reason", "field"),
    [
        (b"LJ099-9999|no file|no file", "missing_audio", "id"),
        (b"LJ001-0001|one|one", "duplicate_id", None),
        (b"LJ001-0001|another|another", "conflict", None),
        (b"LJ001-0002||", "missing_value", "text"),
        (b"LJ001-0002|  | ", "missing_value", "text"),
        (b"LJ001-0002", "malformed", None),
        (b"LJ001-0003|a|b|c|d", "malformed", None),
        (b"# comment", "malformed", None),
        (b"LJ001-0002|raison d'\xeatre|x", "encoding", None),
        (b"LJ001-0002|in being\0 modern|x", "encoding", None),
        (b"../../../../../../etc/passwd|root|root", "outside_corpus", "id"),
        (b"/etc/passwd|root|root", "outside_corpus", "id"),
        (b"lj001-0002|two|two", "missing_audio", "id"),
        (b"LJ001-0002|" + b"word " * 9000 + b"|x", "conflict", None),
    ],
)
def test_a_bad_line_is_rejected_with_number_and_reason(tmp_path, second_line, reason, field):
    table = b"LJ001-0001|one|one\n" + second_line + b"\nLJ001-0003|three|three\n"
    clips, rejects = lj(tmp_path, table)
    assert sorted(clips) == ["LJ001-0001", "LJ001-0003"]
    assert clips["LJ001-0001"].transcript == "one"
    assert reasons(rejects) == [(reason, 2, field)]
    assert rejects[0].uri.endswith("metadata.csv")


def test_a_case_mismatch_names_the_file_that_is_there(tmp_path):
    _, rejects = lj(tmp_path, "lj001-0001|one|one\n")
    assert "LJ001-0001.wav' differs in upper and lower case" in rejects[0].detail


def test_invisible_characters_are_cleaned_and_noted(tmp_path):
    text = "in \u202ebeing\u202c, \u200bcompa\u00adratively \u0007modern."
    clips, _ = lj(tmp_path, f"LJ001-0002|{text}\n")
    assert clips["LJ001-0002"].transcript == "in being, comparatively modern."
    assert clips["LJ001-0002"].notes == ("cleaned: removed U+0007, U+00AD, U+200B, U+202C, U+202E",)


@pytest.mark.parametrize(
    ("table", "reason"),
    [(b"", "empty_manifest"), ("LJ001-0001|one|one\n".encode("utf-16"), "encoding")],
)
def test_a_table_that_is_none_is_rejected_with_a_clear_message(tmp_path, table, reason):
    write_corpus(tmp_path, AUDIO | {"metadata.csv": table})
    rejects = [r for corpus in search(tmp_path).corpora for r in corpus.rejects]
    assert reason in [row.reason for row in rejects if row.uri.endswith("metadata.csv")]


def test_audio_that_no_line_names_is_reported(tmp_path):
    write_corpus(tmp_path, AUDIO | {"metadata.csv": "LJ001-0001|one\n"})
    _, rejects = read_corpus(tmp_path, "ljspeech")
    assert [row.reason for row in rejects] == ["unreferenced", "unreferenced"]
