from __future__ import annotations

import pytest

from tests.factories.corpora import read_corpus, reasons, write_corpus

CAPTIONS = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n"
METADATA = (
    "file_name,keywords,sound_id,sound_link,start_end_samples,manufacturer,license\n"
    "Distorted AM Radio noise.wav,noise;radio,173334,https://freesound.org/173334,"
    '"[40000, 962000]",caf\xe9 man,http://creativecommons.org/licenses/by/3.0/\n'
)
ROW = 'Distorted AM Radio noise.wav,"A muddled, noise.",Static.,Static.,A radio,Noise\n'


@pytest.mark.parametrize("place", ["", "clotho_csv_files/"])
@pytest.mark.parametrize("encoding", ["utf-8", "iso-8859-1"])
def test_captions_keywords_licence_and_source(tmp_path, place, encoding):
    files = {
        f"{place}clotho_captions_development.csv": CAPTIONS + ROW,
        f"{place}clotho_metadata_development.csv": METADATA.encode(encoding),
        "clotho_audio_files/development/Distorted AM Radio noise.wav": None,
    }
    clips, rejects = read_corpus(write_corpus(tmp_path, files), "clotho")
    (row,) = clips.values()
    assert row.clip_id.endswith("/development/Distorted AM Radio noise")
    assert row.captions == ("A muddled, noise.", "Static.", "A radio", "Noise")
    assert (row.tags, row.licence, row.split) == (("noise", "radio"), "CC-BY-3.0", "train")
    assert (row.attribution, row.modality) == ("caf\xe9 man", "sound")
    assert rejects == []


def test_one_name_in_two_sets_is_two_clips(tmp_path):
    row = "rain.wav,A,B,C,D,E\n"
    files = {
        "clotho_captions_validation.csv": CAPTIONS + row,
        "clotho_captions_evaluation.csv": CAPTIONS + row,
        "validation/rain.wav": None,
        "evaluation/rain.wav": None,
    }
    clips, rejects = read_corpus(write_corpus(tmp_path, files), "clotho")
    assert {key: row.split for key, row in clips.items()} == {
        "validation/rain": "validation",
        "evaluation/rain": "test",
    }
    assert rejects == []


def test_a_set_that_was_not_downloaded_is_one_reject(tmp_path):
    files = {
        "clotho_captions_development.csv": CAPTIONS + "a.wav,A,B,C,D,E\nb.wav,A,B,C,D,E\n",
        "clotho_captions_evaluation.csv": CAPTIONS + "c.wav,A,B,C,D,E\n",
        "evaluation/c.wav": None,
    }
    clips, rejects = read_corpus(write_corpus(tmp_path, files), "clotho")
    assert list(clips) == ["evaluation/c"]
    assert [row.reason for row in rejects] == ["unclaimed"]
    assert "2 rows" in rejects[0].detail


def test_bad_rows_are_rejected_with_line_and_column(tmp_path):
    rows = "c.wav,A,B,C,D,E\ngone.wav,A,B,C,D,E\nd.wav, ,,,,\nc.wav,A\n"
    files = {"clotho_captions_evaluation.csv": CAPTIONS + rows}
    audio = {"evaluation/c.wav": None, "evaluation/d.wav": None}
    clips, rejects = read_corpus(write_corpus(tmp_path, files | audio), "clotho")
    assert list(clips) == ["evaluation/c"]
    assert reasons(rejects) == [
        ("missing_audio", 3, "file_name"),
        ("missing_value", 4, "caption_1"),
        ("malformed", 5, None),
    ]
