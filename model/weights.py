"""Weights on disk: safetensors only, digests, and the name map of published Qwen3 checkpoints.

Nothing here unpickles.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from model.audiocalm import AudioCALM

_CHUNK_BYTES = 1 << 20
_QWEN3_PREFIX = "model."
_QWEN3_UNUSED = ("lm_head.weight",)
"""There is no language-model output; it is tied to the embedding or not needed."""


def save_weights(
    path: Path,
    weights: nn.Module | Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write weights as safetensors: aside, then renamed, so the file is complete or absent.

    Args:
        path: File to write; its folder exists.
        weights: A module's parameters and buffers, or named tensors.
        metadata: Strings for the header.
    """
    named = weights.state_dict() if isinstance(weights, nn.Module) else weights
    # Tensors that share memory are refused by the format; each gets its own.
    own = {
        name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in named.items()
    }
    aside = path.with_name(f".{path.name}.{os.getpid()}.aside")
    try:
        save_file(own, aside, metadata=dict(metadata or {}))
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def load_weights(path: Path, device: str = "cpu") -> dict[str, Tensor]:
    """The named tensors of a safetensors file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a whole safetensors file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    try:
        return load_file(path, device=device)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file: {error}") from error


def read_tensors(path: Path, device: str = "cpu") -> Iterator[tuple[str, Tensor]]:
    """The named tensors of a safetensors file, one at a time.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a whole safetensors file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    try:
        with safe_open(path, framework="pt", device=device) as file:
            for name in file.keys():  # noqa: SIM118 - a safetensors file is no mapping
                yield name, file.get_tensor(name)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file: {error}") from error


def fill(model: nn.Module, paths: Iterable[Path], device: str = "cpu") -> None:
    """Give a module the tensors of safetensors files, one tensor at a time.

    A module on the meta device takes them as they are, so that it is never in memory twice. One
    that has memory keeps its own dtype and device.

    Args:
        model: Has exactly the tensors of the files together.
        paths: One file, or the shards.
        device: Where tensors of a module on the meta device come to lie.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a name or a shape does not fit, or tensors are missing.
    """
    wanted = model.state_dict()
    found: set[str] = set()
    for path in paths:
        for name, tensor in read_tensors(path, device):
            if name not in wanted or wanted[name].shape != tensor.shape:
                theirs = tuple(wanted[name].shape) if name in wanted else "none"
                raise ValueError(
                    f"{path.name} holds {name} of {tuple(tensor.shape)} and the model {theirs}"
                )
            is_meta = wanted[name].is_meta
            model.load_state_dict({name: tensor}, strict=False, assign=is_meta)
            found.add(name)
    if missing := sorted(wanted.keys() - found):
        raise ValueError(f"the files lack {len(missing)} tensors, first {missing[0]}")


def read_metadata(path: Path) -> dict[str, str]:
    """The strings in the header of a safetensors file.

    Raises:
        ValueError: If it is not a whole safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file: {error}") from error


def digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            hasher.update(chunk)
    return hasher.hexdigest()


def load_qwen3(model: AudioCALM, folder: Path, new_token_ids: Sequence[int] = ()) -> None:
    """Fill the backbone with a published Qwen3 checkpoint; everything else keeps its values.

    Tensors are read one at a time, so the peak is the model and the largest of them.

    Args:
        model: Its backbone has the published shapes, as the presets do; not on the meta device.
        new_token_ids: Special tokens in rows that the checkpoint never trained. They start at the
            mean embedding, scaled to the mean length of an embedding.
        folder: Holds `model.safetensors`, or the shards that `model.safetensors.index.json`
            names. A `config.json` beside them is checked against the model.

    Raises:
        FileNotFoundError: If the files are missing.
        ValueError: If a name or a shape does not fit, or the configuration differs.
    """
    backbone = model.backbone
    _check_qwen3_config(model, folder / "config.json")
    wanted = {
        name: value for name, value in backbone.state_dict().items() if ".expert." not in name
    }
    found: set[str] = set()
    for path in _qwen3_files(folder):
        for published, tensor in read_tensors(path):
            if published in _QWEN3_UNUSED:
                continue
            name = published.removeprefix(_QWEN3_PREFIX)
            if name not in wanted:
                raise ValueError(f"{path.name} holds {published}, which the backbone has not")
            if wanted[name].shape != tensor.shape:
                raise ValueError(
                    f"{published} is {tuple(tensor.shape)} and the backbone's "
                    f"{tuple(wanted[name].shape)}; choose the preset of that checkpoint"
                )
            with torch.no_grad():
                wanted[name].copy_(tensor)
            found.add(name)
    if missing := sorted(wanted.keys() - found):
        raise ValueError(f"the checkpoint lacks {len(missing)} tensors, first {missing[0]}")
    if new_token_ids:
        _start_tokens(backbone.embed_tokens.weight, new_token_ids)


def _start_tokens(embedding: Tensor, token_ids: Sequence[int]) -> None:
    """Rows of tokens that no text has trained: the mean of the others, as long as they are.

    A mean of many directions is short; a token far shorter or longer than those around it would
    be heard too little or too much.
    """
    rows = torch.tensor(sorted(set(token_ids)))
    if int(rows[0]) < 0 or int(rows[-1]) >= len(embedding):
        raise ValueError(
            f"new token ids {rows.tolist()} are outside the {len(embedding)} rows of the embedding"
        )
    is_trained = torch.ones(len(embedding), dtype=torch.bool)
    # Rows behind the first new id are padding of the published table.
    is_trained[int(rows[0]) :] = False
    if not is_trained.any():
        raise ValueError("no row of the embedding is left to learn new tokens from")
    with torch.no_grad():
        trained = embedding[is_trained.to(embedding.device)]
        length = torch.linalg.vector_norm(trained, dim=1, dtype=torch.float32).mean()
        mean = trained.mean(0, dtype=torch.float32)
        start = mean * (length / torch.linalg.vector_norm(mean).clamp_min(1e-12))
        embedding[rows.to(embedding.device)] = start.to(embedding.dtype)


def _qwen3_files(folder: Path) -> list[Path]:
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if index.is_file():
        names = set(json.loads(index.read_text())["weight_map"].values())
        if any(Path(name).name != name for name in names):
            raise ValueError(f"{index} names files outside its folder")
        return [folder / name for name in sorted(names)]
    if not single.is_file():
        raise FileNotFoundError(f"neither {index.name} nor {single.name} in {folder}")
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
            raise ValueError(f"{path}: {name} is {theirs} and the model's {ours}")
