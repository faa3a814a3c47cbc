from __future__ import annotations

import pytest

from tests.factories.corpora import read_corpus, reasons, write_corpus

COLUMNS = [
    "client_id",
    "path",
    "sentence_id",
    "sentence",
    "sentence_domain",
    "up_votes",
    "down_votes",
    "age",
    "gender",
    "accents",
    "variant",
    "locale",
    "segment",
]
OLD_COLUMNS = [
    "client_id",
    "path",
    "sentence",
    "up_votes",
    "down_votes",
    "age",
    "gender",
    "accent",
    "locale",
    "segment",
]


def table(*rows, columns=COLUMNS):
    """Rows of (client, path, sentence, gender) between tabs, as the release tool writes them."""
    lines = ["\t".join(columns)]
    for client, path, sentence, gender in rows:
        known = {"client_id": client, "path": path, "sentence": sentence, "gender": gender}
        known |= {"locale": "ga-IE", "segment": "Benchmark", "up_votes": "2", "age": "twenties"}
        lines.append("\t".join(known.get(column, "") for column in columns))
    return "\n".join(lines) + "\n"


def corpus(tmp_path, tables, num_clips=4):
    clips = {f"clips/common_voice_ga-IE_{n}.mp3": None for n in range(1, num_clips + 1)}
    write_corpus(tmp_path / "cv-corpus-17.0-2024-03-15" / "ga-IE", clips | tables)
    found, rejects = read_corpus(tmp_path, "common_voice")
    return {key.rpartition("_")[2]: row for key, row in found.items()}, rejects


def path(number):
    return f"common_voice_ga-IE_{number}.mp3"


@pytest.mark.parametrize("columns", [COLUMNS, OLD_COLUMNS], ids=["new", "old"])
def test_the_splits_and_what_is_confirmed_beside_them(tmp_path, columns):
    train = [("anna", path(1), 'He said "no', "female_feminine")]
    test = [("bert", path(2), "Dia dhuit.", "male")]
    more = [("bert", path(3), "Go raibh maith agat.", "other"), ("carl", path(4), "Slán.", "")]
    tables = {
        "train.tsv": table(*train, columns=columns),
        "dev.tsv": table(columns=columns),
        "test.tsv": table(*test, columns=columns),
        "validated.tsv": table(*train, *test, *more, columns=columns),
        "clip_durations.tsv": "clip\tduration[ms]\n",
        "reported.tsv": "sentence_id\tsentence\tlocale\treason\n",
        "times.txt": "",
    }
    clips, rejects = corpus(tmp_path, tables)
    assert {key: row.split for key, row in clips.items()} == {
        "1": "train",
        "2": "test",
        "3": "test",  # its speaker is heard in the test split
        "4": "train",
    }
    assert [clips[key].speaker_sex for key in "1234"] == ["female", "male", None, None]
    assert clips["1"].transcript == 'He said "no'
    assert (clips["1"].language, clips["1"].licence) == ("ga-ie", "CC0-1.0")
    assert clips["1"].speaker == "cv-corpus-17.0-2024-03-15-ga-IE/anna"
    assert rejects == []


def test_recordings_without_confirmation_are_left_out_and_counted(tmp_path):
    tables = {
        "validated.tsv": table(("anna", path(1), "A.", "")),
        "invalidated.tsv": table(("anna", path(2), "B.", ""), ("bert", path(3), "C.", "")),
        "other.tsv": table(("bert", path(4), "D.", "")),
    }
    clips, rejects = corpus(tmp_path, tables)
    assert list(clips) == ["1"]
    assert [(row.reason, row.detail[:12]) for row in rejects] == [
        ("unclaimed", "2 recordings"),
        ("unclaimed", "1 recordings"),
    ]


def test_bad_rows_are_rejected_with_line_and_column(tmp_path):
    rows = table(
        ("anna", path(1), "A.", ""), ("anna", path(9), "B.", ""), ("anna", path(2), "", "")
    )
    clips, rejects = corpus(tmp_path, {"train.tsv": rows + "short\trow\n"}, num_clips=2)
    assert list(clips) == ["1"]
    assert reasons(rejects) == [
        ("missing_audio", 3, "path"),
        ("missing_value", 4, "sentence"),
        ("malformed", 5, None),
    ]
