from __future__ import annotations

from tests.factories.corpora import read_corpus, reasons, write_corpus

SPEAKERS = """;ID  |SEX| SUBSET           |MINUTES| NAME
60   | M | train-clean-100  | 20.18 | |CBW|Simon
61   | F | dev-clean        | 20.18 | Somebody
"""


def test_transcripts_readers_and_declared_splits(tmp_path):
    write_corpus(
        tmp_path,
        {
            "SPEAKERS.TXT": SPEAKERS,
            "LICENSE.TXT": "see http://creativecommons.org/licenses/by/4.0/",
            "train-clean-100/60/121/60-121-0000.flac": None,
            "train-clean-100/60/121/60-121.trans.txt": "60-121-0000 THERE'S IRON\n",
            "dev-clean/61/7/61-7-0000.flac": None,
            "dev-clean/61/7/61-7.trans.txt": "61-7-0000 IN OUR BLOOD\n",
        },
    )
    clips, rejects = read_corpus(tmp_path, "librispeech")
    first, second = clips["60-121-0000"], clips["61-7-0000"]
    assert (first.transcript, first.speaker_sex, first.split) == ("THERE'S IRON", "male", "train")
    assert (second.speaker_sex, second.split) == ("female", "validation")
    assert first.speaker == f"{tmp_path.name}/60"
    assert first.licence == "CC-BY-4.0"
    assert rejects == []


def test_flat_folder_without_transcripts_gives_untranscribed_clips(tmp_path):
    write_corpus(tmp_path, {"SPEAKERS.TXT": SPEAKERS, "61-7-0000.flac": None})
    clips, rejects = read_corpus(tmp_path, "librispeech")
    row = clips["61-7-0000"]
    assert (row.transcript, row.speaker_sex, row.split) == (None, "female", "validation")
    assert rejects == []


def test_audio_without_a_line_is_untranscribed(tmp_path):
    write_corpus(
        tmp_path,
        {
            "5/6/5-6-0000.flac": None,
            "5/6/5-6-0001.flac": None,
            "5/6/5-6.trans.txt": "5-6-0000 WORDS\n",
        },
    )
    clips, rejects = read_corpus(tmp_path, "librispeech")
    assert clips["5-6-0001"].transcript is None
    assert clips["5-6-0000"].transcript == "WORDS"
    assert rejects == []


def test_every_bad_line_is_reported_with_its_number(tmp_path):
    lines = [
        "5-6-0000 WORDS",
        "5-6-0001",
        "5-6-0002 NO SUCH AUDIO",
        "5-6-0000 A SECOND TEXT",
        "9-9-0000 ANOTHER CHAPTER",
        "lower case line without an id",
    ]
    write_corpus(tmp_path, {"5/6/5-6-0000.flac": None, "5/6/5-6.trans.txt": "\n".join(lines)})
    clips, rejects = read_corpus(tmp_path, "librispeech")
    assert [row.transcript for row in clips.values()] == ["WORDS"]
    assert reasons(rejects) == [
        ("missing_value", 2, None),
        ("missing_audio", 3, None),
        ("conflict", 4, None),
        ("malformed", 5, None),
        ("malformed", 6, None),
    ]
    assert "line 1" in rejects[2].detail


def test_a_bad_line_of_the_readers_is_reported(tmp_path):
    write_corpus(tmp_path, {"SPEAKERS.TXT": SPEAKERS + "oops\n", "61-7-0000.flac": None})
    clips, rejects = read_corpus(tmp_path, "librispeech")
    assert len(clips) == 1
    assert reasons(rejects) == [("malformed", 4, None)]
