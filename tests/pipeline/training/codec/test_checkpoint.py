from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.errors import DamagedError
from pipeline.storage import Folder
from pipeline.training.checkpoint_store import CheckpointStore
from pipeline.training.codec.checkpoint import (
    checkpoint_files,
    hyper_parameters,
    load_checkpoint,
)
from pipeline.training.place import Place
from pipeline.training.saving import PendingCheckpoint


def trained(steps: int) -> tuple[torch.nn.Linear, torch.optim.AdamW]:
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, betas=(0.8, 0.99))
    for _ in range(steps):
        advance(layer, optimizer)
    return layer, optimizer


def save(
    store: CheckpointStore,
    step: int,
    optimizer: torch.optim.Optimizer,
    tensors: dict[str, dict[str, torch.Tensor]] | None = None,
) -> None:
    optimizers = {"optimizer": optimizer}
    values = {"param_groups": hyper_parameters(optimizers), "state": {"curve": [1.5]}}
    files = checkpoint_files(tensors or {}, optimizers)
    PendingCheckpoint(store, Place(), step, files, values).complete()


def advance(layer: torch.nn.Linear, optimizer: torch.optim.AdamW) -> None:
    optimizer.zero_grad()
    layer(torch.ones(1, 3)).square().sum().backward()
    optimizer.step()


def test_a_restored_optimizer_takes_the_same_next_step(tmp_path: Path) -> None:
    store = CheckpointStore(Folder.at(tmp_path))
    layer, optimizer = trained(3)
    save(store, 3, optimizer, {"model": layer.state_dict()})
    other, fresh = trained(0)
    tensors, state = load_checkpoint(store, 3, {"optimizer": fresh})
    other.load_state_dict(tensors["model"])
    assert state == {"curve": [1.5]}
    for pair in ((layer, optimizer), (other, fresh)):
        advance(*pair)
    assert torch.equal(layer.weight, other.weight)
    assert not list(tmp_path.rglob("*.pt"))


def test_a_folder_without_its_marker_is_no_checkpoint(tmp_path: Path) -> None:
    store = CheckpointStore(Folder.at(tmp_path))
    for step in (2, 10, 6):
        save(store, step, trained(1)[1])
    store.at(10).delete("_COMPLETE")
    assert store.steps() == [2, 6]


def test_only_the_latest_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(Folder.at(tmp_path))
    for step in (1, 2, 3):
        save(store, step, trained(1)[1])
    store.retain(2)
    assert store.steps() == [2, 3]
    assert not store.at(1).exists()


@pytest.mark.parametrize("payload", [b"\xff", b"[]", b'{"files": [], "state": {}}'])
def test_an_unreadable_marker_is_damage(tmp_path: Path, payload: bytes) -> None:
    store = CheckpointStore(Folder.at(tmp_path))
    save(store, 4, trained(1)[1])
    (tmp_path / "step_00000004" / "trainer_state.json").write_bytes(payload)
    with pytest.raises(DamagedError, match=r"trainer_state\.json was altered"):
        load_checkpoint(store, 4, {"optimizer": trained(0)[1]})


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    store = CheckpointStore(Folder.at(tmp_path))
    save(store, 4, trained(1)[1])
    (tmp_path / "step_00000004" / "optimizer.safetensors").write_bytes(b"torn")
    with pytest.raises(DamagedError, match=r"optimizer\.safetensors is missing or was altered"):
        load_checkpoint(store, 4, {"optimizer": trained(0)[1]})
