from __future__ import annotations

from tests.factories.corpora import read_corpus, reasons, write_corpus


def test_words_between_the_marks_are_the_transcript(tmp_path):
    write_corpus(
        tmp_path,
        {
            "fileids": "austen-0870\nausten-0880\n",
            "transcription": "<s> he was not </s> (austen-0870)\nto be (austen-0880)\n",
            "austen-0870.flac": None,
            "austen-0880.flac": None,
        },
    )
    clips, rejects = read_corpus(tmp_path, "sphinx", default_language="en")
    assert {key: row.transcript for key, row in clips.items()} == {
        "austen-0870": "he was not",
        "austen-0880": "to be",
    }
    assert clips["austen-0870"].language == "en"
    assert rejects == []


def test_lines_off_the_form_and_ids_without_words_are_rejected(tmp_path):
    write_corpus(
        tmp_path,
        {
            "test.fileids": "a\nb\n",
            "test.transcription": "<s> fine </s> (a)\n<s> no id </s>\n<s> gone </s> (c)\n",
            "a.wav": None,
            "b.wav": None,
        },
    )
    clips, rejects = read_corpus(tmp_path, "sphinx")
    assert list(clips) == ["a"]
    assert reasons(rejects) == [
        ("malformed", 2, None),
        ("missing_audio", 3, "id"),
        ("missing_value", 2, None),
    ]
