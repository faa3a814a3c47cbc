from __future__ import annotations

import csv
import io

from tests.factories.corpora import read_corpus, reasons, write_corpus

COLUMNS = [
    ("album", "title"),
    ("artist", "bio"),
    ("artist", "name"),
    ("set", "split"),
    ("set", "subset"),
    ("track", "duration"),
    ("track", "genre_top"),
    ("track", "genres"),
    ("track", "language_code"),
    ("track", "license"),
    ("track", "title"),
]
GENRES = "genre_id,#tracks,parent,title,top_level\n21,12693,0,Hip-Hop,21\n4,1,21,Lo-Fi,21\n"


def table(*rows, columns=COLUMNS):
    """Rows of (id, values by column) below the three header rows that pandas writes."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["", *(top for top, _ in columns)])
    writer.writerow(["", *(below for _, below in columns)])
    writer.writerow(["track_id", *([""] * len(columns))])
    for number, values in rows:
        writer.writerow([number, *(values.get(below, "") for _, below in columns)])
    return out.getvalue()


def track(subset="small", **more):
    return {"split": "training", "subset": subset, "genre_top": "Hip-Hop", "title": "Food"} | more


def test_genres_artist_licence_and_split(tmp_path):
    food = track(
        name="AWOL",
        genres="[21, 4]",
        license="Attribution-NonCommercial-ShareAlike 3.0 International",
        bio='Lives\nin "N.Y."',
        language_code="en",
        duration="168",
    )
    files = {
        "fma_metadata/tracks.csv": table((2, food), (5, track(split="test", genres="[]"))),
        "fma_metadata/genres.csv": GENRES,
        "fma_metadata/features.csv": "feature,chroma\n",
        "fma_small/000/000002.mp3": None,
        "fma_small/000/000005.mp3": None,
        "fma_small/checksums": "x",
    }
    clips, rejects = read_corpus(write_corpus(tmp_path / "fma", files), "fma")
    row = clips["000002"]
    assert (row.tags, row.title, row.attribution) == (("Hip-Hop", "Lo-Fi"), "Food", "AWOL")
    assert (row.licence, row.language, row.modality) == ("CC-BY-NC-SA-3.0", "en", "music")
    assert row.declared_duration_s is None  # the table says how long the whole track is
    assert (row.split, clips["000005"].split) == ("train", "test")
    assert rejects == []


def test_the_largest_size_is_taken_and_larger_subsets_are_not_missed(tmp_path):
    rows = (
        (2, track()),
        (3, track("medium", duration="200")),
        (4, track("large")),
    )
    files = {
        "fma_metadata/tracks.csv": table(*rows),
        "fma_small/000/000002.mp3": None,
        "fma_medium/000/000002.mp3": None,
        "fma_medium/000/000003.mp3": None,
    }
    clips, rejects = read_corpus(write_corpus(tmp_path, files), "fma")
    assert sorted(clips) == ["000002", "000003"]
    assert clips["000002"].uri.endswith("fma_medium/000/000002.mp3")
    assert rejects == []


def test_whole_tracks_have_the_declared_length(tmp_path):
    files = {
        "fma_metadata/tracks.csv": table((2, track("large", duration="168"))),
        "fma_full/000/000002.mp3": None,
    }
    clips, _ = read_corpus(write_corpus(tmp_path, files), "fma")
    assert clips["000002"].declared_duration_s == 168


def test_bad_rows_are_rejected_with_their_line(tmp_path):
    rows = table((2, track()), (3, track()), ("x", track())) + "4,short\n"
    files = {"fma_metadata/tracks.csv": rows, "fma_small/000/000002.mp3": None}
    clips, rejects = read_corpus(write_corpus(tmp_path, files), "fma")
    assert list(clips) == ["000002"]
    assert reasons(rejects) == [
        ("missing_audio", 5, "track_id"),
        ("malformed", 6, "track_id"),
        ("malformed", 7, None),
    ]


def test_a_table_without_its_header_is_one_reject(tmp_path):
    text = table((2, track()), columns=COLUMNS[:4])
    files = {"fma_metadata/tracks.csv": text, "fma_small/000/000002.mp3": None}
    clips, rejects = read_corpus(write_corpus(tmp_path, files), "fma")
    assert clips == {}
    assert ("missing_column", 1, "set.subset, track.genre_top, track.title") in reasons(rejects)
