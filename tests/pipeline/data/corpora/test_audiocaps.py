from __future__ import annotations

import pytest

from tests.factories.corpora import read_corpus, reasons, write_corpus

HEADER = "audiocap_id,youtube_id,start_time,caption\n"


def audiocaps(tmp_path, files):
    return read_corpus(write_corpus(tmp_path / "AUDIOCAPS", files), "audiocaps")


def test_several_captions_of_one_excerpt_are_one_clip_of_the_tables_split(tmp_path):
    files = {
        "train.csv": HEADER + '91139,r1nicOVtvkQ,130,"A woman talks, nearby."\n',
        "val.csv": HEADER
        + "97151,vfY_TJq7n_U,130,Rustling occurs\n97153,vfY_TJq7n_U,130,Ducks quack\n",
        "test.csv": HEADER + "1,-8Y29hrCv6A,10,A dog barks\n",
        "audio_32000Hz/train/r1nicOVtvkQ_130.flac": None,
        "audio_32000Hz/val/vfY_TJq7n_U_130.flac": None,
        "audio_32000Hz/test/-8Y29hrCv6A_10.flac": None,
    }
    clips, rejects = audiocaps(tmp_path, files)
    assert clips["vfY_TJq7n_U_130"].captions == ("Rustling occurs", "Ducks quack")
    assert clips["r1nicOVtvkQ_130"].captions == ("A woman talks, nearby.",)
    assert [clips[key].split for key in sorted(clips)] == ["test", "train", "validation"]
    assert {row.modality for row in clips.values()} == {"sound"}
    assert rejects == []


@pytest.mark.parametrize(
    "name", ["r1nicOVtvkQ", "Yr1nicOVtvkQ", "r1nicOVtvkQ_130", "r1nicOVtvkQ_130000_140000", "91139"]
)
def test_the_names_that_downloaders_give(tmp_path, name):
    table = HEADER + "91139,r1nicOVtvkQ,130,A woman talks\n"
    clips, rejects = audiocaps(tmp_path, {"dataset/train.csv": table, f"wavs/{name}.wav": None})
    assert list(clips) == ["r1nicOVtvkQ_130"]
    assert rejects == []


def test_bad_rows_are_rejected_with_line_and_column(tmp_path):
    rows = "1,aaa,10,A dog\n2,gone,10,A cat\n3,aaa,ten,A cow\n4,bbb,0,\n5,bbb\n6,aaa,10,A dog\n"
    files = {"train.csv": HEADER + rows, "a/aaa_10.wav": None, "a/bbb_0.wav": None}
    clips, rejects = audiocaps(tmp_path, files)
    assert [row.captions for row in clips.values()] == [("A dog",)]
    assert reasons(rejects) == [
        ("missing_audio", 3, "youtube_id"),
        ("malformed", 4, "start_time"),
        ("missing_value", 5, "caption"),
        ("malformed", 6, None),
    ]
