from __future__ import annotations

import pytest

from tests.factories.corpora import read_corpus, reasons, write_corpus

GOOD = "1\n00:00:00,000 --> 00:00:01,000\nFrom fairest creatures\nwe desire\n\n"


def test_every_cue_is_a_clip_of_its_span(tmp_path):
    srt = GOOD + "2\n00:00:01,000 --> 00:00:02,500\nThat thereby\n"
    write_corpus(tmp_path, {"sonnet.mp3": b"-", "sonnet.srt": srt, "sonnet.txt": "f1|not used\n"})
    clips, rejects = read_corpus(tmp_path, "text_beside")
    first, second = clips["sonnet@0.000"], clips["sonnet@1.000"]
    assert (first.start_s, first.end_s) == (0.0, 1.0)
    assert first.transcript == "From fairest creatures we desire"
    assert (second.end_s, second.modality) == (2.5, "speech")
    assert rejects == []


def test_a_text_of_fragments_is_the_transcript_of_the_whole_file(tmp_path):
    text = "f000001|Look in thy glass\nf000002|and tell the face\n"
    write_corpus(tmp_path, {"sonnet.mp3": b"-", "sonnet.txt": text, "notes.txt": "nothing"})
    clips, rejects = read_corpus(tmp_path, "text_beside")
    assert clips["sonnet"].transcript == "Look in thy glass and tell the face"
    assert clips["sonnet"].start_s is None
    assert rejects == []


@pytest.mark.parametrize(
    ("cues", "expected"),
    [
        ("9\n00:00:02,000 --> 00:00:01,500\nbackwards\n", [("bad_span", 7, None)]),
        (
            "9\n00:00:01,500 --> 00:00:03,000\none\n\n9\n00:00:02,000 --> 00:00:04,000\ntwo\n",
            [("bad_span", 7, None), ("bad_span", 11, None)],
        ),
        ("9\n00:99:00,000 --> 01:00:00,000\nminute 99\n", [("malformed", 7, None)]),
        ("9\nno time line\n", [("malformed", 7, None)]),
        ("9\n00:00:02,000 --> 00:00:03,000\n", [("missing_value", 7, None)]),
    ],
)
def test_bad_cues_are_reported_one_by_one(tmp_path, cues, expected):
    write_corpus(tmp_path, {"a.mp3": b"-", "a.srt": GOOD + cues})
    clips, rejects = read_corpus(tmp_path, "text_beside")
    assert list(clips) == ["a@0.000"]
    assert reasons(rejects) == expected


def test_cues_without_audio_are_reported(tmp_path):
    write_corpus(tmp_path, {"a.srt": GOOD})
    clips, rejects = read_corpus(tmp_path, "text_beside")
    assert clips == {}
    assert reasons(rejects) == [("missing_audio", 2, None)]
