"""The alignment that a run keeps of its clips."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from model.text import ByteTokenizer, PhonemeTokenizer
from pipeline.errors import IncompleteError
from pipeline.storage import Folder
from pipeline.training.alignment import SPLITS, Alignment, align
from pipeline.training.shards import TrainShards
from tests.factories.train_shards import mixed_clips, write_shards
from tests.factories.training import SMALL_MODEL, small_settings, training

TOKENIZER = ByteTokenizer()


@pytest.fixture
def run(tmp_path: Path) -> Folder:
    write_shards(tmp_path / "shards", mixed_clips(12))
    found = Folder.at(tmp_path / "run")
    align(found, Folder.at(tmp_path / "shards"), TOKENIZER)
    return found


def test_every_clip_with_words_is_aligned_frame_by_frame(run: Folder, tmp_path: Path) -> None:
    shards = TrainShards(Folder.at(tmp_path / "shards"))
    alignment = Alignment(run, "train")
    rows = np.flatnonzero(shards.column("has_transcript"))
    assert len(rows)
    for number in rows:
        row = shards.row(int(number))
        words = TOKENIZER.encode_words(shards.facts(row)["transcript"], "en")
        durations = alignment.of(int(number), len(words))
        assert min(durations) >= 0
        assert sum(durations) == pytest.approx(row["num_frames"], abs=1e-3)


def test_an_alignment_is_found_once(run: Folder, tmp_path: Path) -> None:
    before = {split: run.read_bytes(f"alignment/{split}.parquet") for split in SPLITS}
    times = run.child("alignment").times_ns()
    align(run, Folder.at(tmp_path / "shards"), TOKENIZER)
    assert run.child("alignment").times_ns() == times
    # The same clips give the same bytes in another run.
    other = Folder.at(tmp_path / "other")
    align(other, Folder.at(tmp_path / "shards"), TOKENIZER)
    assert before == {split: other.read_bytes(f"alignment/{split}.parquet") for split in SPLITS}


def test_clips_that_are_unknown_or_have_changed_are_named(run: Folder) -> None:
    alignment = Alignment(run, "train")
    with pytest.raises(IncompleteError, match="0 tokens of row 999 instead of 3"):
        alignment.of(999, 3)


def test_a_run_without_alignment_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(IncompleteError, match="audiocalm train"):
        Alignment(Folder.at(tmp_path), "train")


@pytest.mark.usefixtures("alone")
def test_a_model_that_paces_speech_learns_durations_and_is_validated(tmp_path: Path) -> None:
    clips = mixed_clips(12) + mixed_clips(6, split="validation")
    write_shards(tmp_path / "shards", clips)
    backbone = SMALL_MODEL["backbone"] | {"vocab_size": PhonemeTokenizer.vocab_size}
    settings = small_settings(
        model={
            "tokenizer": "phonemes",
            "overrides": SMALL_MODEL | {"backbone": backbone, "paces_speech": True},
        },
        validation={"every": 6, "num_documents": 4},
        checkpoint={"every": 6},
    )
    run = Folder.at(tmp_path / "run")
    align(run, Folder.at(tmp_path / "shards"), PhonemeTokenizer())
    training(settings, tmp_path / "run", tmp_path / "shards").run()
    logged = [json.loads(line) for line in run.read_bytes("metrics.jsonl").splitlines()]
    durations = [entry["loss/duration"] for entry in logged if "loss/duration" in entry]
    assert len(durations) == 6
    assert durations[-1] < durations[0]
    assert any("validation/loss/duration" in entry for entry in logged)
