from __future__ import annotations

import pytest

from tests.factories.corpora import read_corpus, reasons, write_corpus

HEADER = "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS\n"
ROCK = "track_0000214\tartist_000014\talbum_000031\t14/214.mp3\t0.4\tgenre---punkrock\n"
MANY = (
    "track_0000382\tartist_000020\talbum_000046\t82/382.mp3\t211.1\tgenre---classical"
    "\tinstrument---voice\tmood/theme---calm\n"
)
LICENCES = (
    "14/214.mp3\n"
    "Intro by me by David TMX from Jamendo: http://www.jamendo.com/track/214\n"
    "Available under a Creative Commons Attribution-NonCommercial license: "
    "http://creativecommons.org/licenses/by-nc/3.0/\n\n"
)


@pytest.mark.parametrize("audio", ["raw_30s/audio/14/214.mp3", "14/214.low.mp3"])
def test_tags_of_all_categories_split_and_licence(tmp_path, audio):
    files = {
        "data/autotagging.tsv": HEADER + ROCK + MANY,
        "data/autotagging_genre.tsv": HEADER + ROCK,
        "data/raw.meta.tsv": "TRACK_ID\tARTIST_ID\n",
        "data/splits/split-0/autotagging-train.tsv": HEADER + MANY,
        "data/splits/split-0/autotagging-test.tsv": HEADER + ROCK,
        "stats/autotagging/genre.tsv": "tag\tartists\n",
        "audio_licenses.txt": LICENCES,
        audio: None,
        "audio-more/82/382.mp3": None,
    }
    clips, rejects = read_corpus(write_corpus(tmp_path / "mtg", files), "mtg_jamendo")
    rock, many = clips["track_0000214"], clips["track_0000382"]
    assert (rock.tags, many.tags) == (
        ("genre: punk rock",),
        ("genre: classical", "instrument: voice", "mood: calm"),
    )
    assert (rock.split, many.split, rock.modality) == ("test", "train", "music")
    assert (rock.title, rock.attribution) == ("Intro by me", "David TMX")
    assert (rock.licence, many.licence) == ("CC-BY-NC-3.0", None)
    assert (rock.declared_duration_s, many.declared_duration_s) == (0.4, 211.1)
    assert rejects == []


def test_folders_that_were_not_downloaded_are_one_reject(tmp_path):
    files = {"autotagging.tsv": HEADER + ROCK + MANY, "14/214.mp3": None}
    clips, rejects = read_corpus(write_corpus(tmp_path, files), "mtg_jamendo")
    assert list(clips) == ["track_0000214"]
    assert reasons(rejects) == [("unclaimed", None, None)]


def test_bad_rows_are_rejected_with_their_line(tmp_path):
    lines = [
        ROCK,
        ROCK.replace("214", "314"),
        ROCK.replace("genre---", ""),
        "track_1\tartist\n",
        ROCK,
    ]
    files = {"data/autotagging.tsv": HEADER + "".join(lines), "14/214.mp3": None}
    clips, rejects = read_corpus(write_corpus(tmp_path, files), "mtg_jamendo")
    assert list(clips) == ["track_0000214"]
    assert reasons(rejects) == [
        ("missing_audio", 3, "PATH"),
        ("malformed", 4, None),
        ("malformed", 5, None),
        ("duplicate_id", 6, None),
    ]
