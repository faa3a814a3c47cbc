"""Weights on disk."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model.audiocalm import AudioCALM
from model.batch import pack
from model.bundle.weights import digest, fill, load_weights, opened_weights, save_weights
from model.config import preset
from model.layers import shapes_only
from tests.factories.model import load_qwen3, random_document, random_model, tiny_config


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
    with opened_weights(path) as file:
        assert file.metadata() == {"step": "12"}
    assert list(tmp_path.iterdir()) == [path]


def test_tensors_that_share_memory_or_are_views_are_kept(tmp_path: Path) -> None:
    table = torch.randn(4, 6)
    path = tmp_path / "weights.safetensors"
    save_weights(path, {"table": table, "twin": table, "turned": table.T})
    loaded = load_weights(path)
    assert torch.equal(loaded["twin"], table)
    assert torch.equal(loaded["turned"], table.T)


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
    with pytest.raises(ValueError, match="not a complete safetensors file"):
        load_weights(path)


@pytest.mark.parametrize("is_meta", [False, True])
def test_a_model_is_filled_shard_by_shard(tmp_path: Path, is_meta: bool) -> None:
    model = random_model()
    model.set_latent_stats(torch.arange(6.0), torch.arange(1.0, 7.0))
    weights = model.state_dict()
    shards = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for shard, names in zip(shards, (list(weights)[::2], list(weights)[1::2]), strict=True):
        save_weights(shard, {name: weights[name] for name in names})
    with torch.device("meta" if is_meta else "cpu"):
        again = AudioCALM(tiny_config())
    fill(again, shards)
    for name, value in again.state_dict().items():
        assert torch.equal(value, weights[name]), name
    assert all(parameter.requires_grad for parameter in again.parameters())
    batch = pack([[random_document(model.config, 0)]], model.config, 32)
    with torch.no_grad():
        assert torch.equal(again.eval()(batch).velocity, model(batch).velocity)


def test_files_that_do_not_fit_the_model_are_refused(tmp_path: Path) -> None:
    model, path = random_model(), tmp_path / "model.safetensors"
    weights = dict(model.state_dict())
    save_weights(path, {**weights, "extra": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"extra of \(2,\) and the model none"):
        fill(model, [path])
    save_weights(path, {**weights, "latent_mean": torch.zeros(7)})
    with pytest.raises(ValueError, match=r"latent_mean of \(7,\) and the model \(6,\)"):
        fill(model, [path])
    del weights["latent_std"]
    save_weights(path, weights)
    with pytest.raises(ValueError, match="lack 1 tensors, first latent_std"):
        fill(model, [path])
    with pytest.raises(FileNotFoundError, match="no weights at"):
        fill(model, [tmp_path / "none.safetensors"])


def test_the_largest_preset_is_planned_without_memory() -> None:
    def resident_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident_bytes()
    with shapes_only():
        model = AudioCALM(preset("8b"))
    assert sum(parameter.numel() for parameter in model.parameters()) > 8e9
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    assert resident_bytes() - before < 100e6


def published(model: AudioCALM, folder: Path) -> dict[str, torch.Tensor]:
    """A checkpoint in the published form, with rows that no text has trained."""
    generator = torch.Generator().manual_seed(3)
    weights = {
        f"model.{name}": torch.randn(value.shape, generator=generator)
        for name, value in model.backbone.state_dict().items()
        if ".expert." not in name
    }
    weights["model.embed_tokens.weight"] += 2
    weights["model.embed_tokens.weight"][40:] = 1e-3
    save_file(weights, folder / "model.safetensors")
    return weights


def test_new_tokens_start_at_the_mean_embedding_at_its_usual_length(tmp_path: Path) -> None:
    model = random_model()
    table = published(model, tmp_path)["model.embed_tokens.weight"]
    load_qwen3(model, tmp_path, new_token_ids=(42, 40, 41))
    given = model.backbone.embed_tokens.weight.detach()
    assert torch.equal(given[:40], table[:40])
    assert torch.equal(given[43:], table[43:])
    mean, length = table[:40].mean(0), table[:40].norm(dim=1).mean()
    for row in given[40:43]:
        torch.testing.assert_close(row.norm(), length)
        torch.testing.assert_close(row / row.norm(), mean / mean.norm())
    with pytest.raises(ValueError, match=r"new token ids \[50\] are outside the 50 rows"):
        load_qwen3(model, tmp_path, new_token_ids=(50,))


def test_a_failed_write_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(path, {"a": torch.zeros(3)})
    with pytest.raises(TypeError):
        save_weights(path, {"a": torch.ones(3)}, {"step": 3})  # type: ignore[dict-item]
    assert torch.equal(load_weights(path)["a"], torch.zeros(3))
    assert list(tmp_path.iterdir()) == [path]
