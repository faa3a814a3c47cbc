from __future__ import annotations

import pytest

from tests.factories.corpora import read_corpus, reasons, search, write_corpus


def test_a_table_of_speech_with_a_header(tmp_path):
    table = (
        "file,transcript,language,speaker,sex,style,duration\n"
        'audio/a.wav,"Hello, you",en_US,ada,F,calm,0.4\n'
        "audio/b.wav,Guten Tag,German,bob,M,,x\n"
    )
    write_corpus(
        tmp_path / "speech", {"audio/a.wav": None, "audio/b.wav": None, "metadata.csv": table}
    )
    clips, rejects = read_corpus(tmp_path, "table")
    first, second = clips["audio/a"], clips["audio/b"]
    assert (first.transcript, first.language, first.tags) == ("Hello, you", "en-us", ("calm",))
    assert (first.speaker, first.speaker_sex) == ("speech/ada", "female")
    assert (first.modality, first.declared_duration_s) == ("speech", 0.4)
    assert (second.language, second.declared_duration_s) == (None, None)
    assert len(second.notes) == 2
    assert rejects == []


def test_spans_ids_modality_and_split_of_a_row(tmp_path):
    table = (
        "clip_id\tpath\tstart_s\tend_s\tmodality\tsplit\tlyrics\n"
        "one\tlong.wav\t0.5\t1.5\tmusic\tdev\tla la\n"
        "two\tlong.wav\t1.5\t0.5\tmusic\ttrain\tla\n"
        "three\tlong.wav\t\t\tnoise\ttrain\tla\n"
    )
    write_corpus(tmp_path, {"long.wav": None, "songs.tsv": table})
    clips, rejects = read_corpus(tmp_path, "table")
    (row,) = clips.values()
    assert (row.clip_id, row.start_s, row.end_s) == (f"{tmp_path.name}/one", 0.5, 1.5)
    assert (row.split, row.transcript, row.is_singing) == ("validation", "la la", True)
    assert reasons(rejects) == [("bad_span", 3, "start_s, end_s"), ("malformed", 4, "modality")]


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("text,modality\na dog barks,sound\n", (None, ("a dog barks",), False)),
        ("Text,genre\na slow waltz,waltz\n", (None, ("a slow waltz",), False)),
        ("text\na dog barks\n", (None, ("a dog barks",), False)),
        ("text,lyrics\na slow waltz,la la\n", ("la la", ("a slow waltz",), True)),
        ("text,lyrics\na slow waltz,\n", (None, ("a slow waltz",), False)),
        ("text,singing\nla la,yes\n", ("la la", (), True)),
        ("text,caption\nla la,a slow waltz\n", ("la la", ("a slow waltz",), False)),
        ("text,modality\nhello,speech\n", ("hello", (), False)),
        ("transcript,modality\nla la,music\n", ("la la", (), False)),
    ],
)
def test_text_of_sound_and_music_is_a_caption_unless_it_is_sung(tmp_path, table, expected):
    header, row, _ = table.split("\n")
    files = {"a.wav": None, "t.csv": f"file,{header}\na.wav,{row}\n"}
    clips, rejects = read_corpus(write_corpus(tmp_path, files), "table", default_modality="sound")
    assert rejects == []
    assert (clips["a"].transcript, clips["a"].captions, clips["a"].is_singing) == expected


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("../a.wav", "outside_corpus"),
        ("/etc/passwd", "outside_corpus"),
        ("s3://bucket/b.wav", "outside_corpus"),
        ("A.WAV", "missing_audio"),
        ("", "missing_value"),
    ],
)
def test_audio_that_cannot_be_found_is_a_reject(tmp_path, cell, reason):
    write_corpus(tmp_path / "in", {"a.wav": None, "t.csv": f"file,caption\na.wav,x\n{cell},y\n"})
    clips, rejects = read_corpus(tmp_path / "in", "table", default_modality="sound")
    assert list(clips) == ["a"]
    assert reasons(rejects) == [(reason, 3, "file")]


def test_an_absolute_path_into_the_corpus_is_followed(tmp_path):
    write_corpus(tmp_path, {"a.wav": None, "t.csv": f"file,caption\n{tmp_path}/a.wav,x\n"})
    clips, rejects = read_corpus(tmp_path, "table", default_modality="sound")
    assert list(clips) == ["a"]
    assert rejects == []


def test_a_name_in_two_folders_is_ambiguous(tmp_path):
    files = {"x/a.wav": None, "y/a.wav": None, "t.csv": "file,caption\na.wav,x\nx/a.wav,y\n"}
    clips, rejects = read_corpus(write_corpus(tmp_path, files), "table", default_modality="sound")
    assert list(clips) == ["x/a"]
    assert sorted(row.reason for row in rejects) == ["ambiguous_audio", "unreferenced"]


def test_a_table_about_files_without_labels_is_no_manifest(tmp_path):
    files = {"a.wav": None, "expected.csv": "path,group,defect\na.wav,x,y\n"}
    discovery = search(write_corpus(tmp_path, files), default_modality="sound")
    (corpus,) = discovery.corpora
    assert corpus.layout == "folder"
    assert [row.reason for row in corpus.rejects] == ["unclaimed"]
    assert "['path', 'group', 'defect']" in next(iter(corpus.rejects)).detail


def spans_of(folder, lines):
    """Spans by key, and rejects, of a table of spans of one recording."""
    table = "file,start_s,end_s,duration_s,caption\n" + lines
    write_corpus(folder, {"a.wav": None, "t.csv": table})
    clips, rejects = read_corpus(folder, "table", default_modality="sound")
    return {key: (row.start_s, row.end_s) for key, row in clips.items()}, reasons(rejects)


def test_a_duration_ends_a_span_only_where_nothing_else_does(tmp_path):
    lines = "a.wav,10,,5,one\na.wav,20,22,9,two\na.wav,30,,,three\na.wav,,,40,whole\n"
    spans, rejects = spans_of(tmp_path, lines)
    assert spans == {"a@10": (10, 15), "a@20": (20, 22), "a@30": (30, None), "a": (None, None)}
    assert rejects == []


def test_a_span_whose_duration_is_none_is_rejected(tmp_path):
    spans, rejects = spans_of(tmp_path, "a.wav,1,,x,one\na.wav,2,,-1,two\na.wav,3,4,0,three\n")
    assert spans == {"a@3": (3, 4)}
    assert rejects == [("bad_span", 2, "duration_s"), ("bad_span", 3, "duration_s")]


def test_spans_that_differ_have_different_keys(tmp_path):
    lines = (
        "a.wav,10000,10000.05,,one\na.wav,10000.05,10000.1,,two\n"
        "a.wav,0,5,,three\na.wav,0,10,,four\na.wav,0,,,five\na.wav,0,10,,again\n"
    )
    spans, rejects = spans_of(tmp_path, lines)
    assert spans == {
        "a@10000": (10000, 10000.05),
        "a@10000.05": (10000.05, 10000.1),
        "a@0": (0, 5),
        "a@0-10": (0, 10),
        "a@0-end": (0, None),
    }
    assert rejects == [("conflict", 7, None)]


def test_a_moved_corpus_is_reported_once_and_not_row_by_row(tmp_path, caplog):
    rows = "".join(f"/old/root/wavs/{n}.wav,Sound {n}.\n" for n in range(4))
    files = {f"wavs/{n}.wav": None for n in range(3)} | {"t.csv": f"file,caption\n{rows}"}
    write_corpus(tmp_path, files)
    discovery = search(tmp_path, default_modality="sound")
    (corpus,) = discovery.corpora
    assert sorted(row.captions for row, _ in corpus.clips) == [(f"Sound {n}.",) for n in range(3)]
    assert all(row.notes == () for row, _ in corpus.clips)
    assert reasons(corpus.rejects) == [("missing_audio", 5, "file")]
    assert corpus.moved == {"/old/root": 3}
    told = [record.message for record in caplog.records if "/old/root" in record.message]
    assert len(told) == 1


@pytest.mark.parametrize("word", ["NaN", "nan", "NA", "N/A", "None", "<NA>", "NULL", " ", ""])
def test_words_for_missing_values_are_none(tmp_path, word):
    table = f"file,text,speaker,caption\na.wav,hello,{word},{word}\nb.wav,{word},ann,{word}\n"
    files = {"a.wav": None, "b.wav": None, "t.csv": table}
    clips, rejects = read_corpus(write_corpus(tmp_path / "speech", files), "table")
    assert list(clips) == ["a"]
    assert (clips["a"].transcript, clips["a"].speaker, clips["a"].captions) == ("hello", None, ())
    assert reasons(rejects) == [("missing_value", 3, "text, caption")]


def test_a_header_and_cells_of_any_length_are_read(tmp_path):
    columns = ["file", *(f"column_{n}" for n in range(2_000)), "text"]
    long = "word " * 100_000
    row = ["a.wav", *("x" for _ in range(2_000)), f'"{long}"']
    table = ",".join(columns) + "\n" + ",".join(row) + "\n"
    write_corpus(tmp_path / "speech", {"a.wav": None, "t.csv": table})
    clips, rejects = read_corpus(tmp_path / "speech", "table")
    assert rejects == []
    assert clips["a"].transcript == long.strip()
