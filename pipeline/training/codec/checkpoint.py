"""Checkpoints of codec training: tensors in safetensors, plain values in JSON, nothing pickled.

A checkpoint is a folder `step-00000200`; its `state.json` names the digest of every file and is
written last, so that a folder without it is no checkpoint.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from pipeline.errors import DamagedError, IncompleteError
from pipeline.storage import Folder, sha256

logger = logging.getLogger(__name__)

_STATE = "state.json"
_PREFIX = "step-"


def save_checkpoint(
    folder: Folder,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    optimizers: Mapping[str, torch.optim.Optimizer],
    state: Mapping[str, Any],
) -> None:
    """Write one checkpoint.

    Args:
        folder: Directory of the checkpoints.
        step: Number of steps taken.
        tensors: State dicts by file stem.
        optimizers: Optimizers by file stem; moments go into files of tensors, hyper-parameters into
            the JSON.
        state: More plain values to keep.
    """
    target = folder.child(f"{_PREFIX}{step:08d}")
    moments = {stem: _flat(optimizer) for stem, optimizer in optimizers.items()}
    payloads = {
        f"{stem}.safetensors": _bytes(values) for stem, values in {**tensors, **moments}.items()
    }
    for name, payload in payloads.items():
        target.write_bytes(name, payload)
    target.write_json(
        _STATE,
        {
            "step": step,
            "files": {name: sha256(payload) for name, payload in payloads.items()},
            "param_groups": {
                stem: optimizer.state_dict()["param_groups"]
                for stem, optimizer in optimizers.items()
            },
            "state": dict(state),
        },
    )


def checkpoint_steps(folder: Folder) -> list[int]:
    """Steps of the complete checkpoints, ascending."""
    names = [name for name in folder.files(_STATE, recursive=True) if name.startswith(_PREFIX)]
    return sorted(int(name.split("/")[0].removeprefix(_PREFIX)) for name in names)


def load_checkpoint(
    folder: Folder,
    step: int,
    optimizers: Mapping[str, torch.optim.Optimizer],
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Tensors by file stem and the plain values of one checkpoint; restores the optimizers.

    Raises:
        DamagedError: If a file is missing or differs from its digest; nothing is restored then.
    """
    source = folder.child(f"{_PREFIX}{step:08d}")
    try:
        card = source.read_json(_STATE)
        card["files"].items(), card["param_groups"], card["state"]
    except (FileNotFoundError, IncompleteError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{source.uri}/{_STATE} is missing or damaged: {error}") from error
    tensors: dict[str, dict[str, Tensor]] = {}
    for name, digest in card["files"].items():
        payload = source.read_bytes(name) if source.exists(name) else b""
        if sha256(payload) != digest:
            raise DamagedError(f"{source.uri}/{name} is missing or was altered")
        tensors[name.removesuffix(".safetensors")] = load(payload)
    for stem, optimizer in optimizers.items():
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.pop(stem).items():
            index, _, name = key.partition(".")
            moments.setdefault(int(index), {})[name] = value
        groups = card["param_groups"][stem]
        optimizer.load_state_dict({"state": moments, "param_groups": groups})
    return tensors, card["state"]


def prune_checkpoints(folder: Folder, kept: int) -> None:
    """Delete all but the latest checkpoints."""
    for step in checkpoint_steps(folder)[:-kept]:
        remove_checkpoint(folder, step)


def remove_checkpoint(folder: Folder, step: int) -> None:
    """Delete one checkpoint, whole or half-written."""
    target = folder.child(f"{_PREFIX}{step:08d}")
    if target.exists():
        target.delete(_STATE)  # the marker goes first
        target.filesystem.delete_dir(target.path)


def _flat(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{index}.{name}": value
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }


def _bytes(values: Mapping[str, Tensor]) -> bytes:
    return save({name: value.detach().cpu().contiguous() for name, value in values.items()})
