from __future__ import annotations

import pytest

from tests.factories.corpora import read_corpus, reasons, write_corpus

SPEAKERS_TXT = ";ID  |SEX| SUBSET  |MINUTES| NAME\n84 | F | dev-clean | 8.02 | Christie Nowak\n"
SPEAKERS_TSV = "READER\tGENDER\tSUBSET\tNAME\n84\tF\tdev-clean\tChristie Nowak\n"
CHAPTER = "dev-clean/84/121123/84_121123"
UTTERANCE = f"{CHAPTER}_000007_000001"


def corpus(tmp_path, extra=(), root="LibriTTS"):
    """The published tree: audio, both texts, the chapter's two tables, tables at the root."""
    files = {
        "README_libritts.txt": "LibriTTS",
        "eval_sentences10.tsv": "84_121123_000007_000001\tMaximilian.\n",
        f"{UTTERANCE}.wav": None,
        f"{UTTERANCE}.original.txt": "MAXIMILIAN!",
        f"{UTTERANCE}.normalized.txt": "Maximilian!",
        f"{CHAPTER}.trans.tsv": '84_121123_000007_000001\tNo. 4, "M".\tNumber four, "M".\n',
        f"{CHAPTER}.book.tsv": "84_121123_000007_000001\tMaximilian.\t12.5\t3\t9.1\n",
    } | dict(extra)
    files = {name: text for name, text in files.items() if text != ""}
    write_corpus(tmp_path / root, files)
    return read_corpus(tmp_path, "libritts")


@pytest.mark.parametrize(
    ("name", "table"), [("SPEAKERS.txt", SPEAKERS_TXT), ("speakers.tsv", SPEAKERS_TSV)]
)
def test_the_normalised_line_is_what_was_said(tmp_path, name, table):
    clips, rejects = corpus(tmp_path, {name: table}, root="LibriTTS_R")
    (row,) = clips.values()
    assert row.transcript == 'Number four, "M".'
    assert row.clip_id == "LibriTTS_R/84_121123_000007_000001"
    assert (row.speaker, row.speaker_sex) == ("LibriTTS_R/84", "female")
    assert (row.language, row.licence, row.split) == ("en", "CC-BY-4.0", "validation")
    assert rejects == []


def test_text_files_speak_where_the_chapter_has_no_table(tmp_path):
    clips, rejects = corpus(
        tmp_path, {"SPEAKERS.txt": SPEAKERS_TXT, f"{CHAPTER}.trans.tsv": "", f"{CHAPTER}.x": "x"}
    )
    assert [row.transcript for row in clips.values()] == ["Maximilian!"]
    assert rejects == []


def test_one_subset_alone_is_a_corpus_and_keeps_its_split(tmp_path):
    clips, _ = corpus(tmp_path)
    (row,) = clips.values()
    assert (row.clip_id.partition("/")[0], row.split) == ("LibriTTS-dev-clean", "validation")
    assert row.speaker_sex is None


def test_bad_lines_and_missing_audio_are_rejects(tmp_path):
    lines = (
        "84_121123_000007_000001\tA.\tA.\n"
        "84_121123_000008_000000\tB.\tB.\n"
        "84_121123_000009_000000 no tabs\n"
        "84_121123_000007_000001\tC.\tC.\n"
    )
    extra = {
        "SPEAKERS.txt": SPEAKERS_TXT,
        f"{CHAPTER}.trans.tsv": lines,
        "dev-clean/84/121123/noise.wav": None,
    }
    clips, rejects = corpus(tmp_path, extra)
    assert [row.transcript for row in clips.values()] == ["A."]
    assert reasons(rejects) == [
        ("missing_audio", 2, None),
        ("malformed", 3, None),
        ("conflict", 4, None),
        ("bad_name", None, None),
    ]


def test_an_empty_text_leaves_the_audio_untranscribed(tmp_path):
    extra = {
        "SPEAKERS.txt": SPEAKERS_TXT,
        f"{CHAPTER}.trans.tsv": "",
        f"{UTTERANCE}.original.txt": "",
        f"{UTTERANCE}.normalized.txt": " \n",
    }
    clips, rejects = corpus(tmp_path, extra)
    assert [row.transcript for row in clips.values()] == [None]
    assert rejects == []


def test_a_text_that_is_not_utf8_is_a_reject(tmp_path):
    extra = {f"{CHAPTER}.trans.tsv": "", f"{UTTERANCE}.normalized.txt": b"caf\xe9"}
    clips, rejects = corpus(tmp_path, {"SPEAKERS.txt": SPEAKERS_TXT} | extra)
    assert clips == {}
    assert reasons(rejects) == [("encoding", None, None)]
