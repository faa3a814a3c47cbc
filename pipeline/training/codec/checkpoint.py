"""Contents of the checkpoints of codec training: tensors in safetensors, plain values in JSON.

step_00000200/*.safetensors        weights, their average and the moments of each optimizer
step_00000200/trainer_state.json   parameter groups and plain values
step_00000200/_COMPLETE            SHA-256 and size of every file, written last
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor

from model.bundle.weights import copied
from pipeline.errors import DamagedError
from pipeline.storage import COMPLETE, sha256
from pipeline.training.checkpoint_store import CheckpointStore

_TENSORS = ".safetensors"


def checkpoint_files(
    tensors: Mapping[str, Mapping[str, Tensor]], optimizers: Mapping[str, torch.optim.Optimizer]
) -> dict[str, dict[str, Tensor]]:
    """Copies of state dicts and of the moments of optimizers, by file.

    Args:
        tensors: State dicts by file stem.
        optimizers: Optimizers by file stem; their hyper-parameters are in `hyper_parameters`.
    """
    moments = {stem: _flat(optimizer) for stem, optimizer in optimizers.items()}
    return {f"{stem}{_TENSORS}": copied(one) for stem, one in {**tensors, **moments}.items()}


def hyper_parameters(optimizers: Mapping[str, torch.optim.Optimizer]) -> dict[str, Any]:
    """Hyper-parameters of optimizers, by file stem, as `load_checkpoint` restores them."""
    return {stem: one.state_dict()["param_groups"] for stem, one in optimizers.items()}


def load_checkpoint(
    store: CheckpointStore, step: int, optimizers: Mapping[str, torch.optim.Optimizer]
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Tensors by file stem and the plain values of one checkpoint; restores the optimizers.

    Raises:
        DamagedError: If a file is missing or differs from its digest; nothing is restored then.
    """
    folder, card = store.at(step), store.state(step)
    tensors: dict[str, dict[str, Tensor]] = {}
    for name, entry in folder.read_json(COMPLETE)["files"].items():
        if name.endswith(_TENSORS):
            payload = folder.read_bytes(name) if folder.exists(name) else b""
            if sha256(payload) != entry["sha256"]:
                raise DamagedError(f"{folder.uri}/{name} is missing or was altered")
            tensors[name.removesuffix(_TENSORS)] = load(payload)
    for stem, optimizer in optimizers.items():
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.pop(stem).items():
            index, _, name = key.partition(".")
            moments.setdefault(int(index), {})[name] = value
        groups = card["param_groups"][stem]
        optimizer.load_state_dict({"state": moments, "param_groups": groups})
    return tensors, card["state"]


def _flat(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{index}.{name}": value
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }
