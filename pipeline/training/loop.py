"""The training loop of one worker; it knows torch.distributed, not Ray.

A step: sum what all workers hold, run the micro-batches with those sums as denominators, sum the
losses, stop everywhere if they are not finite, update.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.config import to_dict
from model.objective import VECTOR_LENGTH, LossSums, loss_from, losses
from model.optim import rate_share
from model.text import Tokenizer
from pipeline.errors import NonFiniteError
from pipeline.storage import Folder
from pipeline.tracking import RunReference, Tracker
from pipeline.training.checkpoint import CheckpointStore, load_checkpoint, save_checkpoint
from pipeline.training.engine import TrainEngine, precision_of, sharding
from pipeline.training.feed import Feed, StepBatch
from pipeline.training.metrics import Costs, MetricsLog, StepCounts, Window
from pipeline.training.rundir import CHECKPOINTS, STOP_REQUEST, SUMMARY
from pipeline.training.samples import Samples
from pipeline.training.settings import TrainSettings
from pipeline.training.setup import build_model, model_config, open_tokenizer, special_ids
from pipeline.training.shards import TrainShards

logger = logging.getLogger(__name__)

_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class WorkerPlan:
    """Everything a worker is told.

    Attributes:
        settings: Of the run.
        run: Run directory, by URI.
        shards: Train-shards, by URI.
        tracking: MLflow run; None logs nowhere.
        codec: Codec folder, for samples.
    """

    settings: TrainSettings
    run: str
    shards: str
    tracking: RunReference | None = None
    codec: str | None = None


@dataclass(frozen=True)
class Place:
    """Where a worker stands, and whom it reports to.

    Attributes:
        rank: Of the worker.
        world_size: Workers.
        device: Its device.
        report: Called by every worker with the metrics and the directory of each checkpoint.
        is_preempted: Asked by all workers at each logged step; true wants a checkpoint now.
    """

    rank: int
    world_size: int
    device: torch.device
    report: Callable[[dict[str, Any], Folder], None] = lambda metrics, folder: None
    is_preempted: Callable[[], bool] = lambda: False


class Training:
    """A run as one worker sees it, from the newest checkpoint on.

    Args:
        plan: What to train.
        place: Where this worker stands.

    Attributes:
        feed: Its batches.
        engine: Model, optimiser and weight average.
        start: Steps taken before.
    """

    def __init__(self, plan: WorkerPlan, place: Place) -> None:
        self._plan, self._place = plan, place
        self._settings = settings = plan.settings
        self._run = Folder.at(plan.run)
        self._store = CheckpointStore(self._run.child(CHECKPOINTS))
        shards = TrainShards(Folder.at(plan.shards))
        tokenizer = open_tokenizer(settings.model)
        self._config = model_config(settings.model, shards, tokenizer)
        model = build_model(
            settings,
            self._config,
            shards,
            special_ids(tokenizer),
            place.device,
            sharding(settings, place.device),
        )
        self.feed = Feed(
            shards,
            settings.feed,
            self._config,
            tokenizer,
            settings.seed,
            rank=place.rank,
            world_size=place.world_size,
        )
        self._facts = {
            "identity": settings.identity(),
            "shards": shards.digest,
            "codec": shards.codec,
            "data": {name: shards.card[name] for name in ("hours",) if name in shards.card},
            "model": to_dict(self._config),
            "zero_stage": settings.engine.zero_stage,
            "precision": precision_of(settings),
        }
        self.engine = TrainEngine(model, settings, place.device)
        self._costs = Costs.of(self._config, place.device, place.world_size)
        self._tracker = Tracker(plan.tracking if place.rank == 0 else None)
        self._samples = self._open_samples(shards, tokenizer)
        self._window = Window()
        self._polled = 0.0
        self.start = self._resume()
        self._log = MetricsLog(self._run, self.start)

    def run(self) -> dict[str, Any]:
        """Train to the last step, or to a stop request; returns the summary.

        Raises:
            NonFiniteError: On every worker, before the weights changed.
        """
        settings, step = self._settings, self.start
        is_stopping = False
        with contextlib.closing(self.feed.batches(step, settings.optim.num_steps)) as batches:
            for batch in batches:
                began = time.monotonic()
                sums, counts, norm = self.step(batch)
                self._window.add(sums, counts, norm, time.monotonic() - began)
                step = batch.step + 1
                is_last = step == settings.optim.num_steps
                is_stopping = counts.stop_requests > 0
                is_leaving = False
                if step % settings.log_every == 0 or is_last:
                    self._log_step(step)
                    is_leaving = self._place.is_preempted()
                if step % settings.checkpoint.every == 0 or is_last or is_stopping or is_leaving:
                    self.save(step)
                if is_stopping:
                    break
        return self._finish(step, "stopped" if step < settings.optim.num_steps else "finished")

    def step(self, batch: StepBatch) -> tuple[Tensor, StepCounts, float]:
        """One optimiser step; returns the summed losses, the counts and the gradient norm.

        Raises:
            NonFiniteError: On every worker, before the weights changed.
        """
        own = StepCounts.of(batch, self._config, wants_stop=self._wants_stop())
        counts = StepCounts.from_vector(self._summed(own.to_vector()))
        total = torch.zeros(VECTOR_LENGTH, dtype=torch.float64, device=self._place.device)
        for micro_batch in batch.micro_batches:
            part = micro_batch.to(self._place.device, non_blocking=True)
            sums = losses(self.engine(part), part)
            self.engine.backward(
                loss_from(
                    sums,
                    counts.flow_count,
                    counts.stop_count,
                    self._settings.stop_weight,
                    global_pace_count=counts.pace_count,
                )
            )
            total += sums.to_vector()
        total = self._summed(total)
        if not bool(torch.isfinite(total).all()):
            means = LossSums.from_vector(total).means()
            broken = [name for name, value in means.items() if value != value or abs(value) > 1e30]
            raise NonFiniteError(
                f"the loss of step {batch.step} is not finite in {', '.join(broken)}; the weights "
                "are those before it. Lower optim.learning_rate, or look at the clips of that "
                "step, then go on from the last checkpoint"
            )
        return total, counts, self.engine.step(batch.step)

    def _resume(self) -> int:
        """Load the newest complete checkpoint; returns its step, 0 without one."""
        if self._place.rank == 0:
            for step in self._store.sweep():
                logger.warning("removed the incomplete checkpoint of step %d", step)
        found = [(self._store.steps() or [0])[-1] if self._place.rank == 0 else 0]
        torch.distributed.broadcast_object_list(found, src=0)
        step = int(found[0])
        if step:
            load_checkpoint(self._store, self.engine, step)
            if self._place.rank == 0:
                logger.info("continuing from step %d", step)
        return step

    def _open_samples(self, shards: TrainShards, tokenizer: Tokenizer) -> Samples | None:
        settings, codec = self._settings.sample, self._plan.codec
        if not settings.every or codec is None or self._place.rank != 0:
            return None
        return Samples(settings, shards, Path(codec), tokenizer, self._place.device)

    def _summed(self, vector: Tensor) -> Tensor:
        vector = vector.to(self._place.device)
        torch.distributed.all_reduce(vector)
        return vector.cpu()

    def _wants_stop(self) -> bool:
        """Whether a stop was asked for; rank 0 looks, now and then, and the sum tells all."""
        now = time.monotonic()
        if self._place.rank != 0 or now - self._polled < _POLL_SECONDS:
            return False
        self._polled = now
        return self._run.exists(STOP_REQUEST)

    def _log_step(self, step: int) -> None:
        settings = self._settings
        metrics = self._window.metrics(self._costs, settings.stop_weight)
        metrics["rate/learning_rate"] = settings.optim.learning_rate * rate_share(
            step - 1, settings.optim
        )
        self._window = Window()
        if self._place.rank != 0:
            return
        self._log.add(step, metrics)
        self._tracker.log_metrics(metrics, step)
        logger.info(
            "step %d of %d: loss %.4f, gradient norm %.3f, %.2f s a step, rows %.0f%% full",
            step,
            settings.optim.num_steps,
            metrics["loss/total"],
            metrics["grad_norm"],
            metrics["rate/seconds_per_step"],
            100 * metrics["data/useful_share"],
        )

    def save(self, step: int) -> None:
        """Write and report the checkpoint of a step; every worker takes part."""
        save_checkpoint(self._store, self.engine, step, self._facts)
        if self._place.rank == 0:
            self._log.write()
            self._store.retain(self._settings.checkpoint.num_to_keep)
            logger.info("saved the checkpoint of step %d", step)
            if self._samples is not None and step % self._settings.sample.every == 0:
                self._samples.make(self._store, step, self._run, self._tracker)
        self._place.report({"step": step}, self._store.at(step))

    def _finish(self, step: int, state: str) -> dict[str, Any]:
        entries = self._log.entries
        summary = {
            "state": state,
            "step": step,
            "num_steps": self._settings.optim.num_steps,
            "num_parameters": self.engine.num_parameters,
            "first": entries[0] if entries else {},
            "last": entries[-1] if entries else {},
            "seconds": sum(entry["rate/seconds"] for entry in entries),
            "num_workers": self._place.world_size,
            "mlflow_run": None if self._plan.tracking is None else self._plan.tracking.run_id,
        }
        if self._place.rank == 0:
            self._run.write_json(SUMMARY, summary)
        return summary
