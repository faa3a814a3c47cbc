"""Checkpoints: every worker writes its share as safetensors, the marker comes last.

A checkpoint names its tensors by parameter and offset, so it is read back exactly at any number of
workers and any ZeRO stage, and nothing is ever unpickled: DeepSpeed's own files are, on loading,
and hold only for the world size that wrote them.

    step_00001000/state-0000.safetensors   weights, moments and average held by worker 0
    step_00001000/whole.safetensors        buffers and frozen parameters
    step_00001000/trainer_state.json       step, model, digests of settings and shards
    step_00001000/_COMPLETE                SHA-256 and size of every file
"""

from __future__ import annotations

import contextlib
import logging
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from model.weights import digest, load_weights, save_weights
from pipeline.errors import IncompleteError
from pipeline.storage import COMPLETE, Folder
from pipeline.training.engine import TrainEngine
from pipeline.training.partitions import MOMENTS

logger = logging.getLogger(__name__)

STATE = "trainer_state.json"
WHOLE = "whole.safetensors"
WEIGHTS, AVERAGE = "weights", "average"
"""Kinds of tensors beside AdamW's moments."""
_NAME = re.compile(r"step_(\d{8,})")
_UPLOAD_BYTES = 1 << 24


def checkpoint_name(step: int) -> str:
    """Directory of a step's checkpoint."""
    return f"step_{step:08d}"


@dataclass(frozen=True)
class CheckpointStore:
    """The checkpoints of one run.

    Attributes:
        folder: Holds a directory for each.
    """

    folder: Folder

    def at(self, step: int) -> Folder:
        """The directory of a step."""
        return self.folder.child(checkpoint_name(step))

    def steps(self) -> list[int]:
        """Steps with a complete checkpoint, ascending."""
        return [step for step in self._all() if self.is_complete(step)]

    def is_complete(self, step: int) -> bool:
        """Whether the marker is there and every file it names has its size."""
        folder = self.at(step)
        if not folder.exists(COMPLETE):
            return False
        try:
            files = folder.read_json(COMPLETE)["files"]
        except (IncompleteError, KeyError, TypeError):
            return False
        infos = folder.filesystem.get_file_info([folder.join(name) for name in files])
        wanted = [entry["size_bytes"] for entry in files.values()]
        return [info.size for info in infos] == wanted

    def find(self, step: int | None = None) -> int:
        """The newest complete step, or the one asked for.

        Raises:
            IncompleteError: If there is none, naming those that are complete.
        """
        complete = self.steps()
        if step is None and complete:
            return complete[-1]
        if step in complete and step is not None:
            return step
        wanted = "no complete checkpoint" if step is None else f"no complete checkpoint of {step}"
        raise IncompleteError(
            f"{self.folder.uri} holds {wanted}; complete are {complete or 'none'}: "
            "train on, or choose one of these"
        )

    def sweep(self) -> list[int]:
        """Remove what a killed run left incomplete; returns its steps."""
        broken = [step for step in self._all() if not self.is_complete(step)]
        for step in broken:
            self._remove(step)
        return broken

    def retain(self, num_to_keep: int) -> None:
        """Remove all but the newest complete checkpoints."""
        for step in self.steps()[:-num_to_keep]:
            self._remove(step)

    def state(self, step: int) -> dict[str, Any]:
        """What is known of a checkpoint beside its tensors."""
        found: dict[str, Any] = self.at(step).read_json(STATE)
        return found

    def _all(self) -> list[int]:
        from pyarrow import fs

        selector = fs.FileSelector(self.folder.path, allow_not_found=True)
        infos = self.folder.filesystem.get_file_info(selector)
        matches = (_NAME.fullmatch(info.base_name) for info in infos)
        return sorted(int(match[1]) for match in matches if match)

    def _remove(self, step: int) -> None:
        folder = self.at(step)
        folder.delete(COMPLETE)  # first, so that a kill in between leaves it incomplete
        folder.filesystem.delete_dir(folder.path)


def save_checkpoint(
    store: CheckpointStore, engine: TrainEngine, step: int, facts: Mapping[str, Any]
) -> None:
    """Write the checkpoint of a step; every worker calls this, and it is complete on return.

    Args:
        store: Where to.
        engine: Its state.
        step: Steps taken.
        facts: Kept in `trainer_state.json`.
    """
    folder = store.at(step)
    rank = torch.distributed.get_rank()
    own = {f"state-{rank:04d}.safetensors": _share(engine)}
    whole = _whole(engine)
    if rank == 0:
        own[WHOLE] = whole
    files = {name: _write(folder, name, tensors) for name, tensors in own.items()}
    gathered: list[Any] = [None] * engine.world_size
    torch.distributed.all_gather_object(gathered, files)
    if rank == 0:
        folder.write_json(STATE, {**facts, "step": step, "world_size": engine.world_size})
        every = {name: entry for part in gathered for name, entry in part.items()}
        folder.write_json(COMPLETE, {"files": every})
    torch.distributed.barrier()


def load_checkpoint(store: CheckpointStore, engine: TrainEngine, step: int) -> None:
    """Continue from the checkpoint of a step; every worker calls this.

    Raises:
        IncompleteError: If a file was altered, or the checkpoint does not cover the model.
    """
    with opened(store, step) as reader, torch.no_grad():
        partitions = engine.partitions
        kinds = {WEIGHTS: partitions.weights, AVERAGE: engine.average}
        kinds |= {name: partitions.moments(name) for name in MOMENTS}
        for kind, flats in kinds.items():
            for stretch in partitions.stretches:
                reader.fill(kind, stretch.name, stretch.start, stretch.of(flats))
        engine.restore(step)
        buffers = reader.whole({name for name, _ in engine.module.named_buffers()})
        engine.module.load_state_dict(buffers, strict=False)
    torch.distributed.barrier()


@contextlib.contextmanager
def opened(store: CheckpointStore, step: int) -> Iterator[CheckpointReader]:
    """A reader of one complete checkpoint; a remote one is copied to local disk meanwhile."""
    folder = store.at(store.find(step))
    files = folder.read_json(COMPLETE)["files"]
    with contextlib.ExitStack() as stack:
        if folder.is_local:
            local = Path(folder.path)
        else:
            local = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            for name in files:
                _copy(folder, name, local / name)
        yield CheckpointReader(local, files, folder.uri, stack)


class CheckpointReader:
    """Tensors of a checkpoint by kind and parameter, whoever wrote them.

    A file is checked against its digest when it is first read.
    """

    def __init__(
        self,
        path: Path,
        files: Mapping[str, Mapping[str, Any]],
        uri: str,
        stack: contextlib.ExitStack,
    ) -> None:
        self._path = path
        self._files = files
        self._uri = uri
        self._stack = stack
        self._checked: set[str] = set()
        self._open: dict[str, Any] = {}
        self._pieces: dict[tuple[str, str], list[tuple[int, int, str, str]]] = {}
        for name in sorted(files):
            if name != WHOLE:
                self._index(name)

    def fill(self, kind: str, name: str, start: int, target: Tensor) -> None:
        """Fill a flat tensor with the elements from `start` on of a flattened parameter.

        Raises:
            IncompleteError: If the checkpoint does not hold all of them.
        """
        stop, filled = start + len(target), 0
        for first, size, file, key in self._pieces.get((kind, name), []):
            begin, end = max(start, first), min(stop, first + size)
            if begin < end:
                piece = self._file(file).get_slice(key)[begin - first : end - first]
                target[begin - start : end - start].copy_(piece)
                filled += end - begin
        if filled != len(target):
            raise IncompleteError(
                f"{self._uri} holds {filled} of the {len(target)} {kind} of {name} from {start} "
                "on; the checkpoint is of another model"
            )

    def parameter(self, kind: str, name: str, shape: torch.Size) -> Tensor:
        """A whole parameter, float32."""
        flat = torch.empty(shape.numel(), dtype=torch.float32)
        self.fill(kind, name, 0, flat)
        return flat.reshape(shape)

    def whole(self, names: Collection[str]) -> dict[str, Tensor]:
        """Buffers and frozen parameters among the names."""
        self._check(WHOLE)
        stored = load_weights(self._path / WHOLE)
        return {name: tensor for name, tensor in stored.items() if name in names}

    def _index(self, file: str) -> None:
        # The header alone; tensors are read, and the digest checked, where they are needed.
        with safe_open(self._path / file, framework="pt") as handle:
            for key in handle.keys():  # noqa: SIM118  # not a mapping
                kind, name, start = key.split("/")
                size = handle.get_slice(key).get_shape()[0]
                self._pieces.setdefault((kind, name), []).append((int(start), size, file, key))

    def _file(self, name: str) -> Any:
        if name not in self._open:
            self._check(name)
            handle = safe_open(self._path / name, framework="pt")
            self._open[name] = self._stack.enter_context(handle)
        return self._open[name]

    def _check(self, name: str) -> None:
        if name in self._checked:
            return
        actual, wanted = digest(self._path / name), self._files[name]["sha256"]
        if actual != wanted:
            raise IncompleteError(
                f"{self._uri}/{name} was altered after it was written: SHA-256 {actual[:12]}..., "
                f"not {wanted[:12]}...; delete this checkpoint and go on from an earlier one"
            )
        self._checked.add(name)


def _share(engine: TrainEngine) -> dict[str, Tensor]:
    """What this worker holds, named `<kind>/<parameter>/<start>`."""
    partitions = engine.partitions
    kinds = {WEIGHTS: partitions.weights, AVERAGE: engine.average}
    kinds |= {name: partitions.moments(name) for name in MOMENTS}
    return {
        f"{kind}/{stretch.name}/{stretch.start}": stretch.of(flats)
        for kind, flats in kinds.items()
        for stretch in partitions.stretches
    }


def _whole(engine: TrainEngine) -> dict[str, Tensor]:
    """Buffers and frozen parameters; under ZeRO-3 gathering them takes every worker."""
    frozen = {
        name: parameter
        for name, parameter in engine.module.named_parameters()
        if not parameter.requires_grad
    }
    buffers = {name: buffer.clone() for name, buffer in engine.module.named_buffers()}
    with engine.gathered(list(frozen.values())):
        return buffers | {name: parameter.detach().clone() for name, parameter in frozen.items()}


def _write(folder: Folder, name: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write one safetensors file; returns its marker entry."""
    with contextlib.ExitStack() as stack:
        if folder.is_local:
            Path(folder.path).mkdir(parents=True, exist_ok=True)
            path = Path(folder.path) / name
        else:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / name
        save_weights(path, tensors)
        entry = {"sha256": digest(path), "size_bytes": path.stat().st_size}
        if not folder.is_local:
            folder.filesystem.create_dir(folder.path, recursive=True)
            with (
                path.open("rb") as source,
                folder.filesystem.open_output_stream(folder.join(name)) as sink,
            ):
                while chunk := source.read(_UPLOAD_BYTES):
                    sink.write(chunk)
    return entry


def _copy(folder: Folder, name: str, target: Path) -> None:
    with folder.open(name) as source, target.open("wb") as sink:
        while chunk := source.read(_UPLOAD_BYTES):
            sink.write(chunk)
