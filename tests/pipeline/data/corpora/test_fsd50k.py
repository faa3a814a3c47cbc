from __future__ import annotations

import json

import pytest

from pipeline.data.corpora.fsd50k import tags_of
from tests.factories.corpora import read_corpus, reasons, write_corpus

INFO = {
    "64760": {
        "title": "guitarras_63.wav",
        "description": "electric guitar",
        "tags": ["electric", "guitar"],
        "license": "http://creativecommons.org/licenses/by/3.0/",
        "uploader": "casualsamples",
    }
}
DEV = 'fname,labels,mids,split\n64760,"Electric_guitar,Guitar,Music","/m/02sgy,/m/0342h",train\n'
EVAL = 'fname,labels,mids\n37199,"Electric_guitar,Guitar","/m/02sgy,/m/0342h"\n'


def test_labels_split_licence_and_uploader(tmp_path):
    files = {
        "FSD50K.dev_audio/64760.wav": None,
        "FSD50K.eval_audio/37199.wav": None,
        "FSD50K.ground_truth/dev.csv": DEV,
        "FSD50K.ground_truth/eval.csv": EVAL,
        "FSD50K.ground_truth/vocabulary.csv": "0,Accelerating_and_revving_and_vroom,/m/07q2z82\n",
        "FSD50K.metadata/dev_clips_info_FSD50K.json": json.dumps(INFO),
        "FSD50K.metadata/eval_clips_info_FSD50K.json": "{}",
        "FSD50K.metadata/collection/collection_dev.csv": "fname,labels,mids\n",
        "FSD50K.doc/README.md": "x",
    }
    clips, rejects = read_corpus(write_corpus(tmp_path / "fsd", files), "fsd50k")
    dev, evaluated = clips["dev/64760"], clips["eval/37199"]
    assert dev.tags == ("Electric guitar",)
    assert (dev.split, evaluated.split, dev.modality) == ("train", "test", "sound")
    assert (dev.licence, dev.attribution) == ("CC-BY-3.0", "casualsamples")
    assert (evaluated.licence, evaluated.title) == (None, None)
    assert rejects == []


@pytest.mark.parametrize(
    ("labels", "tags"),
    [
        ("Bark,Dog,Domestic_animals_and_pets,Animal", ("Bark",)),
        ("Alarm,Clock,Mechanisms", ("Alarm", "Clock")),
        ("Music,Bark,Dog,Animal", ("Music", "Bark")),
        ("Thunderstorm,Thunder,Rain,Water", ("Thunderstorm", "Rain")),
        ("Walk_and_footsteps", ("Walk, footsteps",)),
        ("Nothing_known", ("Nothing known",)),
    ],
)
def test_only_the_most_specific_classes_are_tags(labels, tags):
    assert tags_of(labels) == tags


def test_a_part_that_was_not_downloaded_is_one_reject(tmp_path):
    files = {
        "FSD50K.dev_audio/64760.wav": None,
        "FSD50K.ground_truth/dev.csv": DEV.replace("train", "val"),
        "FSD50K.ground_truth/eval.csv": EVAL,
    }
    clips, rejects = read_corpus(write_corpus(tmp_path, files), "fsd50k")
    assert [row.split for row in clips.values()] == ["validation"]
    assert reasons(rejects) == [("unclaimed", None, None)]


def test_bad_rows_are_rejected_with_line_and_column(tmp_path):
    files = {
        "FSD50K.dev_audio/64760.wav": None,
        "FSD50K.ground_truth/dev.csv": DEV + "1,Dog,/m/0,val\n64760,,,train\n64760\n",
        "FSD50K.metadata/dev_clips_info_FSD50K.json": '{"64760": 3}',
    }
    clips, rejects = read_corpus(write_corpus(tmp_path, files), "fsd50k")
    assert list(clips) == ["dev/64760"]
    assert reasons(rejects) == [
        ("malformed", None, "64760"),
        ("missing_audio", 3, "fname"),
        ("missing_value", 4, "labels"),
        ("malformed", 5, None),
    ]
