"""Embeddings come back bit for bit, take no memory and leave no file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.storage import Folder
from pipeline.training.embeddings import COLUMN, SpeakerEmbeddings
from pipeline.training.shards import TrainShards
from tests.factories.train_shards import mixed_clips, write_shards

_PARTS, _ROWS, _WIDTH = 4, 512, 256


def _columns() -> Iterator[pa.ChunkedArray]:
    for part in range(_PARTS):
        values = np.random.default_rng(part).normal(size=_ROWS * _WIDTH).astype(np.float32)
        offsets = pa.array(np.arange(_ROWS + 1, dtype=np.int32) * _WIDTH)
        yield pa.chunked_array([pa.ListArray.from_arrays(offsets, pa.array(values))])


def test_embeddings_take_none_of_arrows_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = pa.total_allocated_bytes()
    embeddings = SpeakerEmbeddings(_columns())
    grown = pa.total_allocated_bytes() - before
    assert grown < _PARTS * _ROWS * _WIDTH * 4 / 100, "the offsets are a thousandth of the values"
    assert not list(tmp_path.iterdir()), "the file is deleted when it is mapped"
    assert embeddings.widths.tolist() == [_WIDTH] * (_PARTS * _ROWS)
    expected = np.random.default_rng(1).normal(size=_ROWS * _WIDTH).astype(np.float32)
    np.testing.assert_array_equal(embeddings.of(_ROWS + 2), expected[2 * _WIDTH : 3 * _WIDTH])


def test_rows_keep_their_embeddings_when_they_are_sorted_and_filtered(tmp_path: Path) -> None:
    clips = mixed_clips(7) + mixed_clips(6, split="validation") + mixed_clips(5, split="test")
    folder = write_shards(tmp_path, clips[::-1])
    tables = [folder.read_table(name) for name in folder.listed("index/")]
    stored = {row["key"]: row[COLUMN] for row in pa.concat_tables(tables).to_pylist()}
    shards = TrainShards(Folder.at(tmp_path), "validation")
    keys = shards.index["key"].to_pylist()
    assert sorted(keys) == sorted(key for key in stored if key.startswith("validation"))
    for number, key in enumerate(keys):
        found = shards.embeddings.of(number)
        assert (None if found is None else found.tolist()) == stored[key]
    voiced = np.flatnonzero(shards.embeddings.widths)
    mean = np.mean([stored[keys[number]] for number in voiced], axis=0)
    np.testing.assert_allclose(
        shards.embeddings.mean(voiced), mean / np.linalg.norm(mean), rtol=1e-6
    )
