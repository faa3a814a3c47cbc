"""Contents of the checkpoints of a model: every worker's share of the states, as safetensors.

A checkpoint names its tensors by parameter and offset, so it is read back exactly at any number of
workers and any ZeRO stage, and nothing is ever unpickled. DeepSpeed's own files are unpickled on
loading, and fit only the world size that wrote them. `pipeline.training.saving` writes them.

    step_00001000/state-0000.safetensors   weights, moments and average held by worker 0
    step_00001000/whole.safetensors        buffers and frozen parameters
    step_00001000/trainer_state.json       step, model, digests of settings and shards
    step_00001000/_COMPLETE                SHA-256 and size of every file
    base/whole.safetensors                 weights that adapters are added to, where there are any
    base/_COMPLETE                         its SHA-256 and size
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from model.bundle.weights import copied, digest, load_weights
from pipeline.errors import DamagedError, IncompleteError
from pipeline.storage import COMPLETE, Folder
from pipeline.training.checkpoint_store import CheckpointStore
from pipeline.training.engine import TrainEngine
from pipeline.training.partitions import MOMENTS
from pipeline.training.saving import Files, write_tensors

WHOLE = "whole.safetensors"
_BASE = "base"
WEIGHTS, AVERAGE = "weights", "average"
"""Kinds of tensors beside AdamW's moments."""
_UPLOAD_BYTES = 1 << 24


def engine_files(store: CheckpointStore, engine: TrainEngine, *, is_first: bool) -> Files:
    """Copies of what a worker writes of a checkpoint, by file; every worker calls this.

    Args:
        store: Checkpoints of the run; frozen parameters are left out if it has a base.
        engine: Engine whose state is copied.
        is_first: Whether this worker writes what is the same on all.
    """
    files = {f"state-{torch.distributed.get_rank():04d}.safetensors": copied(_share(engine))}
    whole = _whole(engine, with_frozen=not has_base(store), is_first=is_first)
    return files | ({WHOLE: whole} if is_first else {})


def load_checkpoint(store: CheckpointStore, engine: TrainEngine, step: int) -> int:
    """Fill weights, moments and average from the checkpoint of a step.

    The engine continues from them when every worker has called `TrainEngine.restore`.

    Returns:
        Number of updates of the weights; skipped steps count as none.

    Raises:
        DamagedError: If a file is missing or was altered.
        IncompleteError: If the checkpoint is of another model.
    """
    updates = int(store.state(step).get("updates", step))
    _fill_from(store, engine, step)
    return updates


def _fill_from(store: CheckpointStore, engine: TrainEngine, step: int) -> None:
    with opened(store, step) as reader, torch.no_grad():
        partitions = engine.partitions
        kinds = {WEIGHTS: partitions.weights, AVERAGE: engine.average}
        kinds |= {name: partitions.moments(name) for name in MOMENTS}
        for kind, flats in kinds.items():
            for stretch in partitions.stretches:
                reader.fill(kind, stretch.name, stretch.start, stretch.of(flats))
        buffers, frozen = dict(engine.module.named_buffers()), _frozen(engine)
        whole = reader.whole({*buffers, *frozen})
        with engine.gathered([frozen[n] for n in whole if n in frozen], are_written=True):
            for name, value in whole.items():
                (buffers if name in buffers else frozen)[name].copy_(value)


@contextlib.contextmanager
def opened(store: CheckpointStore, step: int) -> Iterator[CheckpointReader]:
    """Open one complete checkpoint; a remote one is copied to local disk for the time of the
    block."""
    with _opened_folder(store.at(store.find(step))) as reader:
        yield reader


def filling(
    model: nn.Module, read: Callable[[str, torch.Size], Tensor]
) -> Callable[[nn.Module], None]:
    """A function that gives a module of the model its own weights.

    Args:
        model: May be on the meta device. Modules that are added to it later keep their weights.
        read: Returns a weight by name and shape.
    """
    prefixes = {module: f"{name}." if name else "" for name, module in model.named_modules()}

    def fill(module: nn.Module) -> None:
        """Copy what was read into the module's own parameters."""
        if module not in prefixes:
            return
        with torch.no_grad():
            for name, parameter in module.named_parameters(recurse=False):
                parameter.copy_(read(f"{prefixes[module]}{name}", parameter.shape))

    return fill


def has_base(store: CheckpointStore) -> bool:
    """Whether the run keeps the weights that its adapters are added to."""
    return store.folder.child(_BASE).exists(COMPLETE)


def save_base(store: CheckpointStore, weights: Mapping[str, Tensor]) -> None:
    """Keep the weights that the adapters of a run are added to, which no checkpoint holds then.

    Args:
        store: Checkpoints of the run.
        weights: All parameters of the model, by the names that they have without adapters.
    """
    folder = store.folder.child(_BASE)
    folder.write_json(COMPLETE, {"files": {WHOLE: write_tensors(folder, WHOLE, copied(weights))}})


@contextlib.contextmanager
def opened_base(store: CheckpointStore) -> Iterator[CheckpointReader]:
    """Open what `save_base` wrote."""
    with _opened_folder(store.folder.child(_BASE)) as reader:
        yield reader


@contextlib.contextmanager
def _opened_folder(folder: Folder) -> Iterator[CheckpointReader]:
    files = folder.read_json(COMPLETE)["files"]
    files = {name: entry for name, entry in files.items() if name.endswith(".safetensors")}
    with contextlib.ExitStack() as stack:
        if folder.is_local:
            local = Path(folder.path)
        else:
            local = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            for name in files:
                _copy(folder, name, local / name)
        yield CheckpointReader(local, files, folder.uri, stack)


class CheckpointReader:
    """Tensors of a checkpoint by kind and parameter, whichever worker wrote them.

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
            DamagedError: If a file was altered.
        """
        stop, filled = start + len(target), 0
        for first, size, file, key in self._pieces.get((kind, name), []):
            begin, end = max(start, first), min(stop, first + size)
            if begin < end:
                piece = self._file(file).get_slice(key)[begin - first : end - first]
                target[begin - start : end - start].copy_(piece)
                filled += end - begin
        if filled != len(target):
            for file in self._files:
                self._check(file)
            raise IncompleteError(
                f"{self._uri} holds {filled} of the {len(target)} {kind} of {name} from {start} "
                "on; the checkpoint is of another model"
            )

    def parameter(self, kind: str, name: str, shape: torch.Size) -> Tensor:
        """A whole parameter, float32."""
        flat = torch.empty(shape.numel(), dtype=torch.float32)
        self.fill(kind, name, 0, flat)
        return flat.reshape(shape)

    def tensor(self, name: str) -> Tensor:
        """A buffer or a frozen parameter."""
        found: Tensor = self._file(WHOLE).get_tensor(name)
        return found

    def whole(self, names: Collection[str]) -> dict[str, Tensor]:
        """Buffers and frozen parameters among the names."""
        self._check(WHOLE)
        stored = load_weights(self._path / WHOLE)
        return {name: tensor for name, tensor in stored.items() if name in names}

    def _index(self, file: str) -> None:
        # The header alone; tensors are read, and the digest checked, where they are needed.
        try:
            with safe_open(self._path / file, framework="pt") as handle:
                for key in handle.keys():  # noqa: SIM118  # not a mapping
                    kind, name, start = key.split("/")
                    size = handle.get_slice(key).get_shape()[0]
                    self._pieces.setdefault((kind, name), []).append((int(start), size, file, key))
        except (SafetensorError, FileNotFoundError, ValueError, IndexError) as error:
            raise DamagedError(f"{self._uri}/{file} is no longer readable: {error}") from error

    def _file(self, name: str) -> Any:
        if name not in self._open:
            self._check(name)
            handle = safe_open(self._path / name, framework="pt")
            self._open[name] = self._stack.enter_context(handle)
        return self._open[name]

    def _check(self, name: str) -> None:
        if name in self._checked:
            return
        try:
            actual, wanted = digest(self._path / name), self._files[name]["sha256"]
        except (FileNotFoundError, KeyError) as error:
            raise DamagedError(f"{self._uri}/{name} or its digest is missing: {error}") from error
        if actual != wanted:
            raise DamagedError(
                f"{self._uri}/{name} was altered after it was written: SHA-256 {actual[:12]}..., "
                f"not {wanted[:12]}...; use an earlier checkpoint"
            )
        self._checked.add(name)


def _share(engine: TrainEngine) -> dict[str, Tensor]:
    """The tensors that this worker holds, named `<kind>/<parameter>/<start>`."""
    partitions = engine.partitions
    kinds = {WEIGHTS: partitions.weights, AVERAGE: engine.average}
    kinds |= {name: partitions.moments(name) for name in MOMENTS}
    return {
        f"{kind}/{stretch.name}/{stretch.start}": stretch.of(flats)
        for kind, flats in kinds.items()
        for stretch in partitions.stretches
    }


def _frozen(engine: TrainEngine) -> dict[str, torch.nn.Parameter]:
    named = engine.module.named_parameters()
    return {name: parameter for name, parameter in named if not parameter.requires_grad}


def _whole(engine: TrainEngine, *, with_frozen: bool, is_first: bool) -> dict[str, Tensor]:
    """Copies of buffers and frozen parameters on the first worker; under ZeRO-3 all take part."""
    frozen = _frozen(engine) if with_frozen else {}
    with engine.gathered(list(frozen.values())):
        return copied(dict(engine.module.named_buffers()) | frozen) if is_first else {}


def _copy(folder: Folder, name: str, target: Path) -> None:
    with folder.open(name) as source, target.open("wb") as sink:
        while chunk := source.read(_UPLOAD_BYTES):
            sink.write(chunk)
