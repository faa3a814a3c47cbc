from __future__ import annotations

import json

from tests.factories.corpora import read_corpus, reasons, write_corpus


def blob(*rows):
    return json.dumps({"num_captions_per_audio": 1, "data": list(rows)})


def sound(number, **more):
    facts = {"id": number, "caption": f"Sound {number}.", "duration": 0.4, "author": "Ann"}
    return facts | {"title": "x", "href": "/people/ann", "tags": ["rain"]} | more


def test_ids_are_found_in_the_folder_of_their_source(tmp_path):
    files = {
        "json_files/FreeSound/fsd_final.json": blob(sound("12"), sound("13")),
        "json_files/FreeSound/fsd_final_2s.json": blob(sound("12")),
        "json_files/SoundBible/sb_final.json": blob(sound("12", duration=0.4)),
        "json_files/AudioSet_SL/as_final.json": blob(
            {"id": "Yb0RFKhbpFJA.wav", "caption": "Wind.", "audio": "wav_path", "duration": 0.4}
        ),
        "json_files/BBC_Sound_Effects/bbc_final.json": blob(sound("NHU05"), sound("NHU06")),
        "json_files/blacklist/blacklist_exclude_test_ac.json": "{}",
        "Zip_files/FreeSound/FreeSound_flac/12.flac": None,
        "Zip_files/FreeSound/FreeSound_flac/13.flac": None,
        "SoundBible/12.flac": None,
        "AudioSet_SL_flac/Yb0RFKhbpFJA.flac": None,
    }
    clips, rejects = read_corpus(write_corpus(tmp_path / "WavCaps", files), "wavcaps")
    assert sorted(clips) == [
        "AudioSet_SL/Yb0RFKhbpFJA",
        "FreeSound/12",
        "FreeSound/13",
        "SoundBible/12",
    ]
    row = clips["FreeSound/12"]
    assert (row.captions, row.attribution, row.declared_duration_s) == (("Sound 12.",), "Ann", 0.4)
    assert (row.modality, row.licence) == ("sound", "LicenseRef-WavCaps-academic-use")
    assert row.uri.endswith("FreeSound_flac/12.flac")
    assert [row.reason for row in rejects] == ["unclaimed"]
    assert "2 rows not read: no audio of BBC_Sound_Effects" in rejects[0].detail


def test_bad_rows_and_files_are_rejects(tmp_path):
    rows = blob(sound("1"), sound("2"), sound("3", caption=""), "4", {"caption": "No id."})
    files = {
        "json_files/SoundBible/sb_final.json": rows,
        "json_files/FreeSound/fsd_final.json": '{"data": 3}',
        "json_files/AudioSet_SL/as_final.json": "{",
        "SoundBible/1.flac": None,
        "SoundBible/3.flac": None,
        "FreeSound/9.flac": None,
    }
    clips, rejects = read_corpus(write_corpus(tmp_path, files), "wavcaps")
    assert list(clips) == ["SoundBible/1"]
    assert reasons(rejects) == [
        ("malformed", 1, None),
        ("malformed", None, "data"),
        ("missing_audio", None, "data[1].id"),
        ("missing_value", None, "data[2].caption"),
        ("malformed", None, "3"),
        ("missing_audio", None, "data[4].id"),
        ("unreferenced", None, None),
    ]
