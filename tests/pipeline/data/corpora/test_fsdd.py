from __future__ import annotations

import pytest

from tests.factories.corpora import read_corpus, reasons, write_corpus


def test_digit_speaker_and_licence_come_from_the_name(tmp_path):
    write_corpus(tmp_path / "digits", {"recordings/7_jackson_3.wav": None, "README.txt": "Digits."})
    clips, rejects = read_corpus(tmp_path, "fsdd")
    row = clips["7_jackson_3"]
    assert (row.transcript, row.language, row.modality) == ("seven", "en", "speech")
    assert row.clip_id == "digits/7_jackson_3"
    assert row.speaker == "digits/jackson"
    assert row.licence == "CC-BY-SA-4.0"
    assert rejects == []


@pytest.mark.parametrize(
    "name",
    [
        "7_jackson.wav",
        "x_jackson_3.wav",
        "12_jackson_0.wav",
        "7__3.wav",
        "7_jack_son_3.wav",
        "7_jackson_3 (copy).wav",
        "7_jackson_003.wav",
        "\N{ARABIC-INDIC DIGIT SEVEN}_jackson_1.wav",
    ],
)
def test_a_name_off_the_scheme_is_rejected_and_the_rest_kept(tmp_path, name):
    write_corpus(tmp_path, {"7_jackson_3.wav": None, name: None})
    clips, rejects = read_corpus(tmp_path, "fsdd")
    assert list(clips) == ["7_jackson_3"]
    assert reasons(rejects) == [("bad_name", None, None)]
    assert rejects[0].uri.endswith(name)


def test_other_names_are_not_taken_for_digits(tmp_path):
    write_corpus(tmp_path / "music", {"1_piano_2.wav": None, "song.wav": None, "tune.wav": None})
    clips, _ = read_corpus(tmp_path, "folder")
    assert len(clips) == 3
