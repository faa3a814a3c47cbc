from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import IncompleteError
from pipeline.storage import Folder
from pipeline.training.shards import TrainShards
from tests.factories.train_shards import (
    LATENT_DIM,
    FakeClip,
    clip_mean,
    mixed_clips,
    write_shards,
)


def test_clips_are_read_back_from_their_offsets(small_shards):
    shards = TrainShards(Folder.at(small_shards))
    assert len(shards) == 12
    for number in range(len(shards)):
        row = shards.row(number)
        latents = shards.latents(row)
        expected = clip_mean(row["key"], row["num_frames"]).astype(np.float32)
        np.testing.assert_array_equal(latents.mean, expected)
        np.testing.assert_array_equal(latents.log_std, np.full_like(expected, -3.0))
        assert shards.facts(row)["modality"] == row["modality"]


def test_the_order_of_rows_does_not_depend_on_the_files(tmp_path):
    clips = mixed_clips(8)
    keys = []
    for size in (3, 8):
        folder = write_shards(tmp_path / str(size), clips, clips_per_shard=size)
        keys.append(TrainShards(folder).column("key").tolist())
    assert keys[0] == keys[1]


def test_statistics_silence_and_voices_come_from_the_card_and_index(small_shards):
    shards = TrainShards(Folder.at(small_shards))
    assert shards.latent_mean.tolist() == [0.5] * LATENT_DIM
    assert shards.latent_std.tolist() == [2.0] * LATENT_DIM
    assert shards.silence.tolist() == [-1.5] * LATENT_DIM
    assert [(name, len(rows)) for name, rows in shards.speakers().items()] == [
        ("corpus/0", 2),
        ("corpus/1", 2),
    ]
    speakers = [number for number in range(12) if shards.row(number)["speaker"]]
    assert all(shards.embeddings.of(number) is not None for number in speakers)
    silent = next(number for number in range(12) if number not in speakers)
    assert shards.embeddings.of(silent) is None


def test_shards_without_voices_have_no_speaker_width(tmp_path):
    shards = TrainShards(write_shards(tmp_path, [FakeClip(name="a")]))
    assert shards.speaker_dim is None
    assert shards.speakers() == {}


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({"schema_version": 99}, "schema version 99"),
        ({"latent_stats": None}, "latent_stats"),
        ({"latent_stats": {"mean": [0.0], "std": [0.0]}}, "latent_stats"),
        ({"silence": "AAAA"}, "silence"),
        ({"silence": "not base64!"}, "silence"),
    ],
)
def test_a_card_that_lacks_something_is_refused(tmp_path, card, message):
    folder = write_shards(tmp_path, [FakeClip(name="a")], card=card)
    with pytest.raises(IncompleteError, match=message):
        TrainShards(folder)


def test_a_directory_without_marker_is_refused(tmp_path):
    folder = write_shards(tmp_path, [FakeClip(name="a")])
    folder.reopen()
    with pytest.raises(IncompleteError, match="not complete"):
        TrainShards(folder)


def test_latents_of_another_length_than_the_index_says_are_refused(tmp_path: Path):
    write_shards(tmp_path, [FakeClip(name="a", num_frames=10)])
    shards = TrainShards(Folder.at(tmp_path))
    with pytest.raises(IncompleteError, match="run `audiocalm shard` again"):
        shards.latents(shards.row(0) | {"num_frames": 11})
