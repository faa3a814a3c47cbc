"""Checkpoints of codec training: tensors in safetensors, plain values in JSON, nothing pickled.

step_00000200/*.safetensors        weights, their average and the moments of each optimizer
step_00000200/trainer_state.json   parameter groups and plain values
step_00000200/_COMPLETE            SHA-256 and size of every file, written last
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from pipeline.errors import DamagedError
from pipeline.storage import COMPLETE, json_bytes, sha256
from pipeline.training.checkpoint_store import STATE, CheckpointStore

_TENSORS = ".safetensors"


def save_checkpoint(
    store: CheckpointStore,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    optimizers: Mapping[str, torch.optim.Optimizer],
    state: Mapping[str, Any],
) -> None:
    """Write one checkpoint.

    Args:
        store: Checkpoints of the run.
        step: Number of steps taken.
        tensors: State dicts by file stem.
        optimizers: Optimizers by file stem; moments go into files of tensors, hyper-parameters into
            the JSON.
        state: Further plain values to store.
    """
    folder = store.at(step)
    folder.delete(COMPLETE)  # of a damaged checkpoint of the same step
    moments = {stem: _flat(optimizer) for stem, optimizer in optimizers.items()}
    groups = {stem: one.state_dict()["param_groups"] for stem, one in optimizers.items()}
    payloads = {f"{stem}{_TENSORS}": _bytes(one) for stem, one in {**tensors, **moments}.items()}
    payloads[STATE] = json_bytes({"step": step, "param_groups": groups, "state": dict(state)})
    for name, payload in payloads.items():
        folder.write_bytes(name, payload)
    files = {
        name: {"sha256": sha256(payload), "size_bytes": len(payload)}
        for name, payload in payloads.items()
    }
    folder.write_json(COMPLETE, {"files": files})


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


def _bytes(values: Mapping[str, Tensor]) -> bytes:
    return save({name: value.detach().cpu().contiguous() for name, value in values.items()})
