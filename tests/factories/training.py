"""Small training runs, without Ray: process groups, workers and a plain-torch reference."""

from __future__ import annotations

import contextlib
import os
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing
from torch import Tensor

from model.objective import loss_from, losses
from model.optim import adamw, average_decay, parameter_groups, set_rates, update_average
from pipeline.errors import NonFiniteError
from pipeline.storage import Folder
from pipeline.training.feed import Feed, StepBatch
from pipeline.training.loop import Training, WorkerPlan
from pipeline.training.place import Place
from pipeline.training.settings import TrainSettings
from pipeline.training.setup import build_model, model_config, open_tokenizer
from pipeline.training.shards import TrainShards

SMALL_MODEL = {
    "frames_per_block": 4,
    "backbone": {
        "hidden_dim": 16, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "head_dim": 8,
        "ffn_dim": 24,
    },
    "head": {"hidden_dim": 16, "num_layers": 1, "time_embedding_dim": 8},
}  # fmt: skip


def small_settings(**changes: Any) -> TrainSettings:
    """A run of six steps over a model of a few thousand weights; nested changes are merged."""
    values: dict[str, Any] = {
        "model": {"overrides": SMALL_MODEL},
        "feed": {"documents_per_step": 4, "pack_length": 128},
        "optim": {"num_steps": 6, "warmup_steps": 2, "learning_rate": 1e-2, "ema_decay": 0.9},
        "checkpoint": {"every": 2, "num_to_keep": 2},
        # What a CPU takes by itself depends on its instructions; results must not.
        "engine": {"precision": "fp32"},
        "log_every": 1,
        "tracking": {"is_enabled": False},
    }
    for name, change in changes.items():
        merges = isinstance(change, dict) and isinstance(values.get(name), dict)
        values[name] = values[name] | change if merges else change
    return TrainSettings.model_validate(values)


@contextlib.contextmanager
def process_group(path: Path, rank: int = 0, world_size: int = 1) -> Iterator[None]:
    """A gloo group through a file; for one process, or inside a spawned one."""
    before = dict(os.environ)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{path}", rank=rank, world_size=world_size
    )
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
            os.environ.pop(name)
        os.environ |= {name: before[name] for name in before if name not in os.environ}


def training(
    settings: TrainSettings,
    run: Path | str,
    shards: Path | str,
    rank: int = 0,
    **place_fields: Any,
) -> Training:
    """A worker on the CPU; the process group must exist."""
    world_size = torch.distributed.get_world_size()
    place = Place(rank, world_size, torch.device("cpu"), **place_fields)
    return Training(WorkerPlan(settings, str(run), str(shards)), place)


def save(worker: Training, step: int) -> None:
    """Write the checkpoint of a step and wait for it."""
    worker.saving.begin(step)
    worker.saving.finish()


def weights_of(worker: Training, kind: str = "weights") -> dict[str, Tensor]:
    """Whole parameters, put together from what all workers hold."""
    engine = worker.engine
    flats = engine.average if kind == "average" else engine.partitions.weights
    own = [(s.name, s.start, s.of(flats).clone()) for s in engine.partitions.stretches]
    everyone: list[Any] = [None] * engine.world_size
    torch.distributed.all_gather_object(everyone, own)
    pieces = sorted((piece for part in everyone for piece in part), key=lambda p: p[:2])
    found: dict[str, list[Tensor]] = {}
    for name, _, values in pieces:
        found.setdefault(name, []).append(values)
    return {name: torch.cat(parts) for name, parts in found.items()}


def run_workers(work: Callable[..., Any], world_size: int, folder: Path, *arguments: Any) -> Any:
    """Run `work(rank, world_size, *arguments)` in as many processes; returns rank 0's result.

    The function must be importable; what it raises is raised here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.multiprocessing.spawn(_spawned, (work, world_size, folder, arguments), nprocs=world_size)
    return torch.load(folder / "result.pt", weights_only=True)


def _spawned(
    rank: int, work: Callable[..., Any], world_size: int, folder: Path, arguments: tuple[Any, ...]
) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    try:
        with process_group(folder / "group", rank, world_size):
            result = work(rank, world_size, *arguments)
    except BaseException:
        traceback.print_exc()
        raise
    if rank == 0:
        torch.save(result, folder / "result.pt")


class PlainTraining:
    """A run in plain torch, float32 and one process, with the batches of its feed.

    Args:
        settings: Settings of the run.
        shards_path: Its shards.

    Attributes:
        feed: Batches.
        parameters: Weights by name.
        average: Their average, in the same order.
    """

    def __init__(self, settings: TrainSettings, shards_path: Path) -> None:
        shards, tokenizer = TrainShards(Folder.at(shards_path)), open_tokenizer(settings.model)
        config = model_config(settings.model, shards, tokenizer)
        self._settings, self._model = settings, build_model(settings, config, shards).train()
        self.feed = Feed(shards, settings.feed, config, tokenizer, settings.seed)
        self._optimiser = adamw(parameter_groups(self._model, settings.optim), settings.optim)
        self.parameters = dict(self._model.named_parameters())
        self.average = [parameter.detach().clone() for parameter in self.parameters.values()]

    def step(self, batch: StepBatch) -> float:
        """Take one step; returns its loss."""
        settings, micro = self._settings, batch.micro_batches
        flow = sum(float(part.flow_mask.sum()) for part in micro)
        stop = sum(float(part.stop_mask.sum()) for part in micro)
        self._optimiser.zero_grad()
        shares = [
            loss_from(losses(self._model(part), part), flow, stop, settings.stop_weight)
            for part in micro
        ]
        loss = torch.stack(shares).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), settings.optim.clip_norm)
        set_rates(self._optimiser.param_groups, batch.step, settings.optim)
        self._optimiser.step()
        now = [parameter.detach() for parameter in self.parameters.values()]
        update_average(self.average, now, average_decay(batch.step, settings.optim))
        return loss.item()


def reference(
    settings: TrainSettings, shards_path: Path, num_steps: int
) -> tuple[dict[str, Tensor], dict[str, Tensor], list[float]]:
    """The same run in plain torch: weights, their average and the loss of every step."""
    plain = PlainTraining(settings, shards_path)
    history = [plain.step(plain.feed.batch(step)) for step in range(num_steps)]
    flat = {name: parameter.detach().flatten() for name, parameter in plain.parameters.items()}
    averages = zip(plain.parameters, plain.average, strict=True)
    return flat, {name: average.flatten() for name, average in averages}, history


def train_to_the_end(
    rank: int, world_size: int, values: dict[str, Any], run: Path, shards: Path
) -> dict[str, Tensor]:
    """Run all steps; the average of the weights."""
    worker = training(TrainSettings.model_validate(values), run, shards, rank)
    worker.run()
    return weights_of(worker, "average")


def train_two_steps(
    rank: int, world_size: int, values: dict[str, Any], run: Path, shards: Path
) -> dict[str, Any]:
    """Run the first two of three steps; what every worker saw, and the weights."""
    worker = training(TrainSettings.model_validate(values), run, shards, rank)
    seen = []
    for step in range(2):
        batch = worker.feed.batch(step)
        seen.append(sum(len(part.expert_tokens) for part in batch.micro_batches))
        worker.step(batch)
    save(worker, 2)
    everyone: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(everyone, seen)
    return {"expert_positions": everyone, "weights": weights_of(worker)}


def train_some_steps(
    rank: int,
    world_size: int,
    values: dict[str, Any],
    run: Path,
    shards: Path,
    steps: tuple[int, int],
) -> dict[str, Tensor]:
    """Continue from the first of two steps to the second, and save; the weights."""
    worker = training(TrainSettings.model_validate(values), run, shards, rank)
    assert worker.start == steps[0]
    for step in range(*steps):
        worker.step(worker.feed.batch(step))
    save(worker, steps[1])
    return weights_of(worker)


def break_one_rank(
    rank: int, world_size: int, values: dict[str, Any], run: Path, shards: Path
) -> dict[str, Any]:
    """Give rank 1 a target that is not finite; what every worker raised, and the weights."""
    worker = training(TrainSettings.model_validate(values), run, shards, rank)
    before = weights_of(worker)
    batch = worker.feed.batch(0)
    if rank == 1:
        batch.micro_batches[0].velocity_target[0, -1] = float("nan")
        batch.micro_batches[0].flow_mask[0, -1] = True
    raised = ""
    try:
        worker.step(batch)
    except NonFiniteError as error:
        raised = str(error)
    everyone: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(everyone, raised)
    after = weights_of(worker)
    unchanged = all(torch.equal(before[name], after[name]) for name in before)
    return {"raised": everyone, "is_unchanged": unchanged}


def works_of_stages(
    rank: int, world_size: int, settings: dict[int, dict[str, Any]], folder: Path, shards: Path
) -> dict[int, dict[str, Any]]:
    """`train_two_steps` and `break_one_rank` at every ZeRO stage in one pair of processes, for
    their start costs; results by stage, runs in folders `run-STAGE`.
    """
    results = {}
    for stage, values in settings.items():
        trained = train_two_steps(rank, world_size, values, folder / f"run-{stage}", shards)
        broken = break_one_rank(rank, world_size, values, folder / f"broken-{stage}", shards)
        results[stage] = trained | broken
    return results
