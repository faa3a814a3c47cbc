"""Weights on disk."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import pytest
import torch

from model.audiocalm import AudioCALM
from model.batch import pack
from model.weights import digest, load_weights, read_metadata, save_weights
from tests.factories.model import random_document, random_model, tiny_config


def test_a_model_comes_back_as_it_was(tmp_path: Path) -> None:
    model = random_model()
    model.set_latent_stats(torch.arange(6.0), torch.arange(1.0, 7.0))
    path = tmp_path / "model.safetensors"
    save_weights(path, model, {"step": "12"})
    again = AudioCALM(tiny_config()).eval()
    again.load_state_dict(load_weights(path))
    batch = pack([[random_document(model.config, 0, modality="speech")]], model.config, 32)
    with torch.no_grad():
        assert torch.equal(again(batch).velocity, model(batch).velocity)
    assert torch.equal(again.latent_std, model.latent_std)
    assert read_metadata(path) == {"step": "12"}
    assert list(tmp_path.iterdir()) == [path]


def test_tensors_that_share_memory_or_are_views_are_kept(tmp_path: Path) -> None:
    table = torch.randn(4, 6)
    path = tmp_path / "weights.safetensors"
    save_weights(path, {"table": table, "twin": table, "turned": table.T})
    loaded = load_weights(path)
    assert torch.equal(loaded["twin"], table)
    assert torch.equal(loaded["turned"], table.T)
    assert read_metadata(path) == {}


def test_the_digest_is_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(path, {"a": torch.zeros(3)})
    before = digest(path)
    assert before == hashlib.sha256(path.read_bytes()).hexdigest()
    save_weights(path, {"a": torch.zeros(3)})
    assert digest(path) == before
    save_weights(path, {"a": torch.ones(3)})
    assert digest(path) != before


def test_what_is_not_a_whole_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    with pytest.raises(FileNotFoundError, match="no weights at"):
        load_weights(path)
    save_weights(path, {"a": torch.zeros(300)})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a complete safetensors file"):
        load_weights(path)
    path.write_bytes(pickle.dumps({"a": 1}))
    for read in (load_weights, read_metadata):
        with pytest.raises(ValueError, match="not a complete safetensors file"):
            read(path)


def test_a_failed_write_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(path, {"a": torch.zeros(3)})
    with pytest.raises(TypeError):
        save_weights(path, {"a": torch.ones(3)}, {"step": 3})  # type: ignore[dict-item]
    assert torch.equal(load_weights(path)["a"], torch.zeros(3))
    assert list(tmp_path.iterdir()) == [path]
