"""Weights on disk: safetensors only, digests, and the name map of published Qwen3 checkpoints.

Nothing here unpickles.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from model.audiocalm import AudioCALM

StoredPrecision = Literal["fp32", "fp16", "bf16"]
"""Type of weights on disk."""

_STORED = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_CHUNK_BYTES = 1 << 20
_QWEN3_PREFIX = "model."
_QWEN3_UNUSED = ("lm_head.weight",)
"""There is no language-model output; it is tied to the embedding or not needed."""


def save_weights(
    path: Path,
    weights: nn.Module | Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    *,
    are_copies: bool = False,
) -> None:
    """Write weights as safetensors: aside, then renamed, so the file is complete or absent.

    Args:
        path: File to write; its folder exists.
        weights: A module's parameters and buffers, or named tensors.
        metadata: Strings for the header.
        are_copies: Whether the weights come from `copied`, and are written as they are.
    """
    named = weights.state_dict() if isinstance(weights, nn.Module) else weights
    own = dict(named) if are_copies else copied(named)
    aside = path.with_name(f".{path.name}.{os.getpid()}.aside")
    try:
        save_file(own, aside, metadata=dict(metadata or {}))
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def copied(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of tensors in CPU memory; no two of them share it, which safetensors refuses."""
    return {
        name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in named.items()
    }


def stored_as(module: nn.Module, precision: StoredPrecision) -> dict[str, Tensor]:
    """Parameters and buffers of a module in the precision of a bundle.

    Parameters are rounded; buffers, which are few, keep their type.

    Raises:
        ValueError: If a weight is not finite, or too large for the type.
    """
    stored = module.state_dict()
    for name, parameter in module.named_parameters():
        value = parameter.detach().to(_STORED[precision])
        if not bool(torch.isfinite(value).all()):
            largest = float(parameter.detach().abs().max())
            limit = torch.finfo(_STORED[precision]).max
            remedy = "store them as bf16 or fp32" if limit < largest < math.inf else "train again"
            raise ValueError(
                f"{name} has values up to {largest:.4g}, and {precision} holds finite ones up to "
                f"{limit:.4g}; {remedy}"
            )
        stored[name] = value
    return stored


def load_weights(path: Path, device: str = "cpu") -> dict[str, Tensor]:
    """Read all tensors of a safetensors file, by name.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a whole safetensors file.
    """
    with opened_weights(path, device) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@contextlib.contextmanager
def opened_weights(path: Path, device: str = "cpu") -> Iterator[Any]:
    """Open a safetensors file; each tensor is read when it is fetched.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a whole safetensors file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}; copy the folder again as a whole")
    try:
        with safe_open(path, framework="pt", device=device) as file:
            yield file
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a complete safetensors file: {error}; copy it again"
        ) from error


def fill(model: nn.Module, paths: Iterable[Path], device: str = "cpu") -> None:
    """Load safetensors files into a module, one tensor at a time.

    Tensors take the dtype of the module. A module on the meta device gets them as its memory, so
    that it is never in memory twice.

    Args:
        model: Has exactly the tensors of the files together.
        paths: One file, or the shards.
        device: Device that a module on the meta device gets; others keep their own.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a name or a shape does not fit, or tensors are missing.
    """
    wanted = model.state_dict()
    found: set[str] = set()
    for path in paths:
        with opened_weights(path, device) as file:
            for name in file.keys():  # noqa: SIM118 - a safetensors file is no mapping
                tensor = file.get_tensor(name)
                if name not in wanted or wanted[name].shape != tensor.shape:
                    theirs = tuple(wanted[name].shape) if name in wanted else "none"
                    raise ValueError(
                        f"{path.name} holds {name} of {tuple(tensor.shape)} and the model {theirs}"
                    )
                tensor = tensor.to(wanted[name].dtype)
                model.load_state_dict({name: tensor}, strict=False, assign=wanted[name].is_meta)
                found.add(name)
    if missing := sorted(wanted.keys() - found):
        raise ValueError(
            f"the files lack {len(missing)} tensors, first {missing[0]}; give all shards"
        )


def digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            hasher.update(chunk)
    return hasher.hexdigest()


class Qwen3Checkpoint:
    """A published Qwen3 checkpoint, checked as a whole and then read module by module.

    Reading a module at a time lets a sharded model be filled while no worker holds all of it.

    Args:
        model: Its backbone has the published shapes, as the presets do; may be on the meta device.
        folder: Holds `model.safetensors`, or the shards that `model.safetensors.index.json`
            names. A `config.json` beside them is checked against the model.
        new_token_ids: Special tokens in rows that the checkpoint never trained. They start at the
            mean embedding, scaled to the mean length of an embedding.

    Raises:
        FileNotFoundError: If the files are missing.
        ValueError: If a name or a shape does not fit, or the configuration differs.
    """

    def __init__(self, model: AudioCALM, folder: Path, new_token_ids: Sequence[int] = ()) -> None:
        _check_qwen3_config(model, folder / "config.json")
        backbone = model.backbone
        self._new_token_ids = tuple(new_token_ids)
        self._embedding = backbone.embed_tokens
        wanted = {
            name: value.shape
            for name, value in backbone.state_dict().items()
            if ".expert." not in name
        }
        _check_new_tokens(self._new_token_ids, wanted["embed_tokens.weight"][0])
        self._prefixes = {module: name for name, module in backbone.named_modules()}
        self._places: dict[str, tuple[Path, str]] = {}
        for path in _qwen3_files(folder):
            self._add(path, wanted)
        if missing := sorted(wanted.keys() - self._places.keys()):
            raise ValueError(
                f"the checkpoint lacks {len(missing)} tensors, first {missing[0]}; copy all of its "
                "shards, or choose the preset of that checkpoint"
            )

    def fill(self, module: nn.Module) -> None:
        """Load the tensors of one module of the backbone; other modules keep their values."""
        if module not in self._prefixes:
            return
        prefix = self._prefixes[module]
        with torch.no_grad():
            for name, parameter in module.named_parameters(recurse=False):
                place = self._places.get(f"{prefix}.{name}" if prefix else name)
                if place is not None:
                    with opened_weights(place[0]) as file:
                        parameter.copy_(file.get_tensor(place[1]))
        if module is self._embedding and self._new_token_ids:
            _start_tokens(self._embedding.weight, self._new_token_ids)

    def _add(self, path: Path, wanted: Mapping[str, torch.Size]) -> None:
        """Check the tensors of one file and note where they are."""
        with opened_weights(path) as file:
            for published in file.keys():  # noqa: SIM118 - a safetensors file is no mapping
                if published in _QWEN3_UNUSED:
                    continue
                name = published.removeprefix(_QWEN3_PREFIX)
                if name not in wanted:
                    raise ValueError(
                        f"{path.name} holds {published}, which the backbone has not; give a dense "
                        "Qwen3 checkpoint of the size of the preset"
                    )
                shape = tuple(file.get_slice(published).get_shape())
                if tuple(wanted[name]) != shape:
                    raise ValueError(
                        f"{published} is {shape} and the backbone's {tuple(wanted[name])}; "
                        "choose the preset of that checkpoint"
                    )
                self._places[name] = path, published


def _check_new_tokens(token_ids: Sequence[int], rows: int) -> None:
    if token_ids and (min(token_ids) < 0 or max(token_ids) >= rows):
        raise ValueError(
            f"new token ids {sorted(token_ids)} are outside the {rows} rows of the embedding; use "
            "the tokenizer of the checkpoint"
        )


def _start_tokens(embedding: Tensor, token_ids: Sequence[int]) -> None:
    """Initialise the rows of new tokens: the mean of the trained rows, scaled to their mean length.

    The mean of many directions is short, and attention would give a short token too little weight.
    """
    rows = torch.tensor(sorted(set(token_ids)))
    is_trained = torch.ones(len(embedding), dtype=torch.bool)
    # Rows behind the first new id are padding of the published table.
    is_trained[int(rows[0]) :] = False
    if not is_trained.any():
        raise ValueError(
            f"new token ids start at {int(rows[0])}, so no trained row of the embedding precedes "
            "them; use the tokenizer of the checkpoint"
        )
    with torch.no_grad():
        trained = embedding[is_trained.to(embedding.device)]
        length = torch.linalg.vector_norm(trained, dim=1, dtype=torch.float32).mean()
        mean = trained.mean(0, dtype=torch.float32)
        start = mean * (length / torch.linalg.vector_norm(mean).clamp_min(1e-12))
        embedding[rows.to(embedding.device)] = start.to(embedding.dtype)


def _qwen3_files(folder: Path) -> list[Path]:
    """The file or the shards of a checkpoint."""
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if index.is_file():
        names = set(json.loads(index.read_text())["weight_map"].values())
        if any(Path(name).name != name for name in names):
            raise ValueError(f"{index} names files outside its folder; copy the checkpoint again")
        return [folder / name for name in sorted(names)]
    if not single.is_file():
        raise FileNotFoundError(
            f"neither {index.name} nor {single.name} in {folder}; give the folder of a checkpoint"
        )
    return [single]


def _check_qwen3_config(model: AudioCALM, path: Path) -> None:
    """Raise where a published setting that no tensor shape shows differs from ours."""
    if not path.is_file():
        return
    published: dict[str, Any] = json.loads(path.read_text())
    rope = published.get("rope_parameters") or {}
    theta = published.get("rope_theta", rope.get("rope_theta"))
    config = model.config.backbone
    pairs = {
        "rope_theta": (theta, config.rope_theta),
        "rms_norm_eps": (published.get("rms_norm_eps"), config.norm_eps),
        "num_attention_heads": (published.get("num_attention_heads"), config.num_heads),
        "num_key_value_heads": (published.get("num_key_value_heads"), config.num_kv_heads),
        "num_hidden_layers": (published.get("num_hidden_layers"), config.num_layers),
    }
    for name, (theirs, ours) in pairs.items():
        if theirs is not None and theirs != ours:
            raise ValueError(
                f"{path}: {name} is {theirs} and the model's {ours}; choose the preset of that "
                "checkpoint"
            )
