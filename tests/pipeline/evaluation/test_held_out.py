"""Held-out clips: the test split first, digits apart, the same choice for a seed."""

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.errors import IncompleteError
from pipeline.evaluation.held_out import HeldOutClip, choose
from pipeline.storage import Folder, table_bytes


def prepared(tmp_path: Path) -> Folder:
    rows = []
    for index in range(30):
        modality = ("speech", "sound", "music")[index % 3]
        rows.append(
            {
                "clip_id": f"c/{index:02d}",
                "uri": f"/audio/{index}.wav",
                "start_s": None,
                "end_s": None,
                "modality": modality,
                "language": "en-us" if modality == "speech" else None,
                "split": ("train", "validation", "test")[index // 3 % 3],
                "duration_s": {0: 20.0, 1: 0.099}.get(index, 1.0),
                "transcript": ("seven" if index >= 24 else "two words")
                if modality == "speech"
                else None,
            }
        )
    clips = pa.Table.from_pylist(rows).drop_columns("transcript")
    described = [r for r in rows if r["clip_id"] != "c/03"]
    texts = pa.Table.from_pylist(
        [
            {
                "clip_id": row["clip_id"],
                "descriptions": [f"text of {row['clip_id']}"],
                "transcript": row["transcript"],
            }
            for row in described
        ]
    )
    root = Folder.at(tmp_path)
    for name, table in (("clips", clips), ("descriptions", texts)):
        root.child(name).write_bytes("parts/part-00000.parquet", table_bytes(table))
        root.child(name).finish({})
    return root


def pick(root: Folder, seed: int = 0, per_modality: int = 4) -> list[HeldOutClip]:
    return choose(
        root.child("clips"),
        root.child("descriptions"),
        per_modality=per_modality,
        num_digits=2,
        max_duration_s=5.0,
        seed=seed,
    )


def test_test_comes_before_validation_and_training(tmp_path: Path) -> None:
    sound = [clip for clip in pick(prepared(tmp_path)) if clip.modality == "sound"]
    assert [clip.split for clip in sound] == ["test", "test", "test", "validation"]


def test_digits_are_counted_apart(tmp_path: Path) -> None:
    speech = [clip for clip in pick(prepared(tmp_path)) if clip.modality == "speech"]
    assert [clip.transcript for clip in speech].count("seven") == 2
    assert len(speech) == 6


def test_long_undescribed_and_very_short_clips_are_left_out(tmp_path: Path) -> None:
    chosen = {clip.clip_id for clip in pick(prepared(tmp_path), per_modality=99)}
    assert not chosen & {"c/00", "c/03", "c/01"}
    assert len(chosen) == 27


def test_a_seed_fixes_the_choice(tmp_path: Path) -> None:
    root = prepared(tmp_path)
    assert pick(root) == pick(root)
    assert pick(root) != pick(root, seed=1)


def test_incomplete_or_unsuitable_data_is_refused(tmp_path: Path) -> None:
    root = prepared(tmp_path)
    with pytest.raises(IncompleteError, match="no described clip of at most"):
        choose(
            root.child("clips"),
            root.child("descriptions"),
            per_modality=1,
            num_digits=0,
            max_duration_s=0.1,
            seed=0,
        )
    root.child("clips").reopen()
    with pytest.raises(IncompleteError, match="is not complete"):
        pick(root)
