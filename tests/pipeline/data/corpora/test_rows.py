from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq

from tests.factories.corpora import read_corpus, reasons, write_corpus


def test_json_lines_with_text_tags_and_captions(tmp_path):
    text = (
        '{"audio": "a.wav", "captions": ["One.", "Two."], "tags": ["dog"], "modality": "sound"}\n'
        "\n"
        '{"audio": {"path": "b.wav"}, "text": "hi", "modality": "speech", "speaker_id": 7}\n'
    )
    clips, rejects = read_corpus(
        write_corpus(tmp_path, {"a.wav": None, "b.wav": None, "m.jsonl": text}), "rows"
    )
    assert clips["a"].captions == ("One.", "Two.")
    assert clips["b"].speaker == f"{tmp_path.name}/7"
    assert rejects == []


def test_bad_json_lines_are_rejected_with_their_number(tmp_path):
    text = (
        '{"audio": "a.wav", "text": "hi"}\n'
        "[1]\n"
        '{"audio": "a.wav"\n'
        '{"audio": "a.wav", "text": "x", "text": "y"}\n'
        '{"audio": "none.wav", "text": "x"}\n'
        '{"text": "x"}\n'
    )
    clips, rejects = read_corpus(
        write_corpus(tmp_path / "speech", {"a.wav": None, "m.jsonl": text}), "rows"
    )
    assert list(clips) == ["a"]
    assert reasons(rejects) == [
        ("malformed", 2, None),
        ("malformed", 3, None),
        ("conflict", 4, "text"),
        ("missing_audio", 5, "audio"),
        ("missing_value", 6, None),
    ]


def test_parquet_rows(tmp_path):
    write_corpus(tmp_path / "music", {"a.flac": None, "b.flac": None})
    table = pa.table(
        {
            "file_name": ["a.flac", "none.flac"],
            "caption": ["A tune.", "Lost."],
            "duration_s": [0.4, None],
            "genre": [["jazz", "trio"], None],
        }
    )
    pq.write_table(table, tmp_path / "music" / "train.parquet")
    clips, rejects = read_corpus(tmp_path, "rows")
    assert clips["a"].tags == ("jazz", "trio")
    assert clips["a"].declared_duration_s == 0.4
    assert [(row.reason, row.line) for row in rejects] == [
        ("missing_audio", 2),
        ("unreferenced", None),
    ]


def test_a_file_that_is_not_parquet_is_reported(tmp_path):
    files = {"a.wav": None, "m.jsonl": '{"audio": "a.wav", "text": "hi"}', "x.parquet": "no"}
    _, rejects = read_corpus(write_corpus(tmp_path / "speech", files), "rows")
    assert [row.reason for row in rejects] == ["malformed"]
    assert "not Parquet" in rejects[0].detail


def test_a_start_and_a_duration_are_a_span(tmp_path):
    rows = [
        {"audio_filepath": "talk.wav", "offset": offset, "duration": 0.1, "text": f"part {offset}"}
        for offset in (0.0, 0.1, 0.2)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    clips, rejects = read_corpus(
        write_corpus(tmp_path / "speech", {"talk.wav": None, "m.jsonl": text}), "rows"
    )
    assert {key: (row.start_s, row.end_s) for key, row in clips.items()} == {
        "talk@0": (0.0, 0.1),
        "talk@0.1": (0.1, 0.2),
        "talk@0.2": (0.2, 0.3),
    }
    assert {row.declared_duration_s for row in clips.values()} == {0.1}
    assert rejects == []
