from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.factories.corpora import read_corpus, reasons, search, write_corpus


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


@pytest.mark.parametrize("size", [5_000, 100_000])
@pytest.mark.parametrize("opening", ["", "\n  \n", "{broken\n", "[1]\n"])
def test_a_first_record_of_any_length_is_seen(tmp_path, size, opening):
    words = [{"w": "hello", "s": number} for number in range(size // 20)]
    lines = [
        json.dumps({"audio": f"{n}.wav", "text": f"text {n}", "words": words}) for n in range(3)
    ]
    files = {f"{n}.wav": None for n in range(3)} | {"m.jsonl": opening + "\n".join(lines)}
    clips, rejects = read_corpus(write_corpus(tmp_path / "speech", files), "rows")
    assert [clips[str(n)].transcript for n in range(3)] == ["text 0", "text 1", "text 2"]
    assert [row.reason for row in rejects] == ["malformed"] * bool(opening.strip())


def test_a_first_record_beyond_all_limits_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.data.corpora.base.MAX_LINE_BYTES", 8_192)
    monkeypatch.setattr("pipeline.data.corpora.discover.MAX_LINE_BYTES", 8_192)
    line = json.dumps({"audio": "a.wav", "text": "x", "words": ["hello"] * 5_000})
    write_corpus(tmp_path, {"a.wav": None, "m.jsonl": line})
    (corpus,) = search(tmp_path, default_modality="speech").corpora
    assert [(row.reason, row.detail) for row in corpus.rejects] == [
        ("unclaimed", "its first line is longer than 8192 bytes: not looked at")
    ]


def test_nan_and_words_for_it_are_missing_values(tmp_path):
    nan = float("nan")
    columns = {
        "file": ["0.wav", "1.wav", "2.wav"],
        "text": pa.array(["hello", None, "bye"]),
        "caption": pa.array([nan] * 3),
        "speaker": pa.array([7.0, nan, nan]),
        "start": pa.array([nan, nan, 0.1]),
        "end": pa.array([nan, nan, 0.3]),
        "duration": pa.array([nan, 0.4, nan]),
    }
    folder = write_corpus(tmp_path / "speech", {f"{n}.wav": None for n in range(3)})
    pq.write_table(pa.table(columns), folder / "m.parquet")
    clips, rejects = read_corpus(folder, "rows")
    assert reasons(rejects) == [("missing_value", 2, "text, caption")]
    assert (clips["0"].speaker, clips["0"].start_s) == ("speech/7", None)
    assert clips["0"].captions == ()
    assert (clips["2@0.1"].speaker, clips["2@0.1"].end_s) == (None, 0.3)


def test_nan_of_json_lines_is_missing_and_infinity_is_malformed(tmp_path):
    text = (
        '{"audio": "a.wav", "text": "hi", "speaker": NaN, "duration": NaN}\n'
        '{"audio": "b.wav", "text": NaN}\n'
        '{"audio": "c.wav", "text": "x", "duration": Infinity}\n'
    )
    files = {"a.wav": None, "b.wav": None, "c.wav": None, "m.jsonl": text}
    clips, rejects = read_corpus(write_corpus(tmp_path / "speech", files), "rows")
    assert (clips["a"].speaker, clips["a"].transcript) == (None, "hi")
    found = [(row.reason, row.line) for row in rejects if row.line]
    assert found == [("missing_value", 2), ("malformed", 3)]
