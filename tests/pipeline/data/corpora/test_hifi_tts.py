from __future__ import annotations

import json

from tests.factories.corpora import read_corpus, reasons, write_corpus


def line(path, text, normalised):
    return json.dumps(
        {
            "audio_filepath": path,
            "text": text,
            "duration": 0.4,
            "text_no_preprocessing": normalised,
            "text_normalized": normalised,
        }
    )


def test_reader_quality_and_split_are_in_the_name_of_the_manifest(tmp_path):
    first = "audio/11614_other/10547/thousandnights8_04_downey_0000.flac"
    second = "audio/6097_clean/1/a_0001.flac"
    files = {
        first: None,
        second: None,
        "11614_manifest_other_train.json": line(first, "bread and mr x", "Bread, and Mister X!"),
        "6097_manifest_clean_dev.json": line(second, "yes", ""),
        "readers_books_info.txt": "x",
    }
    clips, rejects = read_corpus(write_corpus(tmp_path / "hi_fi_tts_v0", files), "hifi_tts")
    row, other = clips[first.removesuffix(".flac")], clips[second.removesuffix(".flac")]
    assert row.transcript == "Bread, and Mister X!"
    assert other.transcript == "yes"
    assert (row.speaker, row.speaker_sex) == ("hi_fi_tts_v0/11614", "female")
    assert (row.split, other.split, other.speaker_sex) == ("train", "validation", "male")
    assert (row.language, row.licence, row.declared_duration_s) == ("en", "CC-BY-4.0", 0.4)
    assert rejects == []


def test_bad_lines_are_rejected_with_their_number(tmp_path):
    good = line("audio/a.flac", "yes", "Yes.")
    text = f"{good}\n{{\n[]\n{line('audio/none.flac', 'x', 'x')}\n{line('audio/a.flac', '', '')}\n"
    files = {"audio/a.flac": None, "92_manifest_clean_test.json": text}
    clips, rejects = read_corpus(write_corpus(tmp_path, files), "hifi_tts")
    assert [row.split for row in clips.values()] == ["test"]
    assert reasons(rejects) == [
        ("malformed", 2, None),
        ("malformed", 3, None),
        ("missing_audio", 4, "audio_filepath"),
        ("missing_value", 5, "text"),
    ]
