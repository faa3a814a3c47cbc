"""Held-out clips: training clips only on request, the test split first, one choice per seed."""

import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.errors import IncompleteError
from pipeline.evaluation.held_out import COUNTS, Choice, HeldOutClip, choose, described_clips
from pipeline.storage import Folder, table_bytes
from tests.factories.cards import finish


def prepared(tmp_path: Path, music_split: str | None = None) -> Folder:
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
                "is_singing": modality == "music",
                "split": (modality == "music" and music_split)
                or ("train", "validation", "test")[index // 3 % 3],
                "corpus": "c",
                "speaker": None,
                "tags": ["one tag"],
                "content_sha256": str(index),
                "duration_s": {4: 20.0, 5: 20.0, 7: 0.099}.get(index, 1.0),
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
        root.child(name).write_bytes("parts/part-00000000.parquet", table_bytes(table))
        finish(root.child(name), {})
    return root


def chosen_of(root: Folder, **changes: Any) -> Choice:
    wanted: dict[str, Any] = {"per_modality": 4, "num_digits": 1, "max_duration_s": 5.0, "seed": 0}
    return choose(root.child("clips"), root.child("descriptions"), **(wanted | changes))


def pick(root: Folder, **changes: Any) -> list[HeldOutClip]:
    return chosen_of(root, **changes).clips


def splits_of(clips: list[HeldOutClip], modality: str) -> list[str]:
    return [clip.split for clip in clips if clip.modality == modality]


def test_test_comes_before_validation(tmp_path: Path) -> None:
    splits = splits_of(pick(prepared(tmp_path), per_modality=3), "sound")
    assert splits == ["test", "test", "validation"]


def test_training_clips_are_taken_only_if_asked_for(tmp_path: Path) -> None:
    root = prepared(tmp_path)
    assert "train" not in {clip.split for clip in pick(root, per_modality=99)}
    filled = pick(root, per_modality=99, fill_from_training=True)
    assert splits_of(filled, "sound") == ["test"] * 2 + ["validation"] * 2 + ["train"] * 4


def test_chosen_and_left_out_clips_are_counted_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    choice = chosen_of(prepared(tmp_path), per_modality=3)
    for modality, count in choice.counts.items():
        assert tuple(count) == COUNTS
        assert count["described"] == sum(count.values()) - count["described"]
        splits = splits_of(choice.clips, modality)
        assert [count[split] for split in ("test", "validation", "train")] == [
            splits.count("test"), splits.count("validation"), 0,
        ]  # fmt: skip
    assert caplog.messages[1] == (
        "sound: 2 test, 1 validation (left out: 4 of the training split, 1 longer than 5 s, "
        "1 shorter than 0.1 s, 1 not needed)"
    )


def test_a_modality_without_held_out_clips_is_named_with_the_remedy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clips = pick(prepared(tmp_path, music_split="train"))
    assert {clip.modality for clip in clips} == {"speech", "sound"}
    (warning,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert warning.getMessage() == (
        "music: no clip of 10 (10 of the training split): raise validation_share of ingest and "
        "train again, or set fill_from_training"
    )


def test_clips_may_be_chosen_by_corpus(tmp_path: Path) -> None:
    root = prepared(tmp_path)
    parts = root.child("clips").child("parts")
    rows = parts.read_table("part-00000000.parquet").to_pylist()
    for row in rows:
        row["corpus"] = "even" if int(row["clip_id"][2:]) % 2 else "odd"
    parts.write_bytes("part-00000000.parquet", table_bytes(pa.Table.from_pylist(rows)))
    chosen = [c for c in pick(root, per_corpus=1) if c.modality == "sound"]
    assert sorted(clip.corpus for clip in chosen) == ["even", "odd"]


def test_digits_are_counted_apart(tmp_path: Path) -> None:
    speech = [clip for clip in pick(prepared(tmp_path)) if clip.modality == "speech"]
    assert [clip.transcript for clip in speech].count("seven") == 1
    assert len(speech) == 5


def test_long_undescribed_and_very_short_clips_are_left_out(tmp_path: Path) -> None:
    clips = pick(prepared(tmp_path), per_modality=99, fill_from_training=True)
    chosen = {clip.clip_id for clip in clips}
    assert not chosen & {"c/03", "c/04", "c/05", "c/07"}
    assert len(chosen) == 25


def test_singing_is_marked_in_the_chosen_clips(tmp_path: Path) -> None:
    for clip in pick(prepared(tmp_path)):
        assert clip.is_singing == (clip.modality == "music")


def test_a_seed_fixes_the_choice(tmp_path: Path) -> None:
    root = prepared(tmp_path)
    assert pick(root) == pick(root)
    assert pick(root) != pick(root, seed=1)


def test_incomplete_or_unsuitable_data_is_refused(tmp_path: Path) -> None:
    root = prepared(tmp_path)
    with pytest.raises(IncompleteError, match=r"no clip to evaluate on.* longer than 0.1 s"):
        pick(root, max_duration_s=0.1)
    root.child("clips").reopen()
    with pytest.raises(IncompleteError, match="is not complete"):
        pick(root)


def test_described_clips_are_of_all_splits_and_long_ones_are_cut(tmp_path: Path) -> None:
    root = prepared(tmp_path)
    pool = described_clips(root.child("clips"), root.child("descriptions"), 5.0)
    by_id = {clip.clip_id: clip for clip in pool}
    assert len(pool) == 29
    assert "c/03" not in by_id
    assert {clip.split for clip in pool} == {"train", "validation", "test"}
    assert (by_id["c/04"].end_s, by_id["c/04"].duration_s) == (5.0, 5.0)
    assert (by_id["c/06"].end_s, by_id["c/06"].tags) == (None, ("one tag",))
