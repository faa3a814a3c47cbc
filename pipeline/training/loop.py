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
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.config import to_dict
from model.distillation import student_times
from model.objective import VECTOR_LENGTH, LossSums, loss_from, losses
from model.optim import rate_share
from model.text import Tokenizer
from pipeline.errors import NonFiniteError
from pipeline.progress import checkpoint_line, step_line
from pipeline.storage import Folder
from pipeline.tracking import RunReference, Tracker
from pipeline.training.alignment import Alignment
from pipeline.training.checkpoint import engine_files, load_checkpoint
from pipeline.training.checkpoint_store import CheckpointStore
from pipeline.training.engine import TrainEngine, precision_of, sharding
from pipeline.training.failures import not_finite
from pipeline.training.feed import Feed, StepBatch
from pipeline.training.init_from import keep_base
from pipeline.training.metrics import (
    TOTAL_LOSS,
    Costs,
    MetricsLog,
    StepCounts,
    Window,
    speed_note,
    training_seconds,
)
from pipeline.training.parent import Parent, noted_parent
from pipeline.training.place import Place
from pipeline.training.resume import load_newest
from pipeline.training.rundir import CHECKPOINTS, SUMMARY
from pipeline.training.samples import Samples
from pipeline.training.saving import Files, Saving
from pipeline.training.settings import TrainSettings
from pipeline.training.setup import (
    Teacher,
    build_model,
    model_config,
    open_tokenizer,
    shards_for,
    special_ids,
)
from pipeline.training.shards import TrainShards
from pipeline.training.validation import Validation, lasting_steps, validation_feed

logger = logging.getLogger(__name__)

_DATA_FACTS = ("hours", "speaker")
"""Entries that the card of a bundle takes from the card of the shards."""


@dataclass(frozen=True)
class WorkerPlan:
    """Everything that a worker needs to know.

    Attributes:
        settings: The run's settings.
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


class Training:
    """A run as one worker sees it, from the newest checkpoint on.

    Args:
        plan: Settings and places of the run.
        place: Rank and device of this worker.

    Attributes:
        feed: Batches of this worker.
        engine: Model, optimiser and weight average.
        saving: Checkpoints that the run writes.
        start: Number of steps taken before.
    """

    def __init__(self, plan: WorkerPlan, place: Place) -> None:
        self._plan, self._place = plan, place
        self._settings = settings = plan.settings
        self._run = Folder.at(plan.run)
        self._store = CheckpointStore(self._run.child(CHECKPOINTS))
        parent = noted_parent(self._run)
        shards = shards_for(Folder.at(plan.shards), parent)
        tokenizer = open_tokenizer(settings.model)
        self._config = model_config(settings.model, shards, tokenizer, parent)
        base = self._keep_base(parent)
        has_weights = base is not None or self._store.steps()  # a checkpoint has all that differ
        model = build_model(
            settings,
            self._config,
            shards,
            special_ids(tokenizer),
            place.device,
            sharding(settings, place.device),
            None if has_weights else parent,
            base,
        )
        self._teacher = self._open_teacher(shards, parent)
        self.feed = self._open_feed(shards, tokenizer)
        self._facts = self._facts_of(shards)
        self.engine = TrainEngine(model, settings, place.device)
        self._costs = Costs.of(self._config, place.device, place.world_size)
        if base is not None:  # frozen weights need fewer operations than are counted
            self._costs = Costs(self._config, None)
        self._tracker = Tracker(plan.tracking if place.is_first else None)
        self._samples = self._open_samples(shards, tokenizer)
        self._validation: Validation | None = None
        if settings.validation.every and place.is_first:
            held_out = validation_feed(
                settings,
                shards.folder,
                parent,
                self._config,
                tokenizer,
                alignment=self._alignment("validation"),
            )
            self._validation = Validation(settings, held_out, place.device)
        self._window = Window()
        self._updates = 0
        self.saving = Saving(
            self._run,
            place,
            settings.checkpoint,
            settings.optim.num_steps,
            contents=self._contents,
            completed=self._completed,
        )
        self.start = load_newest(self._store, self._load, place)
        self._log = MetricsLog(self._run, self.start)

    def _keep_base(self, parent: Parent | None) -> CheckpointStore | None:
        """Copy the weights that adapters are added to into the run; None if all are trained."""
        if self._settings.model.lora is None or parent is None:
            return None
        if self._place.is_first:
            keep_base(self._store, parent)
        self._place.wait()
        return self._store

    def _open_teacher(self, shards: TrainShards, parent: Parent | None) -> Teacher | None:
        """The model that a distillation learns from: the parent of the run."""
        settings, device = self._settings, self._place.device
        if settings.distill is None:
            return None
        teacher = build_model(settings, self._config, shards, device=device, parent=parent)
        dtype = torch.bfloat16 if precision_of(settings) == "bf16" else torch.float32
        return Teacher(teacher, settings.distill, dtype)

    def _open_feed(self, shards: TrainShards, tokenizer: Tokenizer) -> Feed:
        settings = self._settings
        times = None
        if settings.distill is not None:
            times = student_times(settings.distill.num_flow_steps)
        return Feed(
            shards,
            settings.feed,
            self._config,
            tokenizer,
            settings.seed,
            rank=self._place.rank,
            world_size=self._place.world_size,
            student_times=times,
            alignment=self._alignment("train"),
        )

    def _alignment(self, split: str) -> Alignment | None:
        """Durations of a split's words, which the driver has found."""
        return Alignment(self._run, split) if self._config.paces_speech else None

    def _facts_of(self, shards: TrainShards) -> dict[str, Any]:
        """Plain values that every checkpoint keeps."""
        card, lora = shards.card, self._settings.model.lora
        return {
            "identity": self._settings.identity(),
            "shards": shards.digest,
            "codec": shards.codec,
            "data": {name: card[name] for name in _DATA_FACTS if name in card},
            "model": to_dict(self._config),
            **({} if lora is None else {"lora": lora.model_dump(mode="json")}),
            "zero_stage": self._settings.engine.zero_stage,
            "precision": precision_of(self._settings),
        }

    def _load(self, step: int) -> Callable[[], None]:
        self._updates = load_checkpoint(self._store, self.engine, step)
        return partial(self.engine.restore, self._updates)

    def run(self) -> dict[str, Any]:
        """Train to the last step, or to a stop request; returns the summary.

        Raises:
            NonFiniteError: On every worker, before the weights changed.
            DiskFullError: On every worker, if a checkpoint could not be written.
        """
        try:
            with self.saving:
                step, is_stopping = self._train()
            return self._finish(step, "stopped" if is_stopping else "finished")
        finally:
            self._tracker.flush()

    def _train(self) -> tuple[int, bool]:
        """Take all steps; returns the last one and whether a stop request ended the training."""
        settings, step = self._settings, self.start
        last = settings.optim.num_steps
        ended = time.monotonic()
        with contextlib.closing(self.feed.batches(step, last)) as batches:
            for batch in batches:
                began = time.monotonic()
                self._window.clock.wait_s += began - ended
                if batch.is_skipped:
                    self._say("step %d is skipped, as feed.skip_steps says", batch.step)
                else:
                    self._window.add(*self.step(batch), time.monotonic() - began)
                step = batch.step + 1
                if step % settings.log_every == 0 or step == last:
                    self._log_step(step)
                stepped = time.monotonic()
                is_stopping = self.saving.after_step(step)
                ended = time.monotonic()
                self._window.clock.save_s += ended - stepped
                if is_stopping and step < last:
                    return step, True
        return step, False

    def step(self, batch: StepBatch) -> tuple[Tensor, StepCounts, float]:
        """One optimiser step; returns the summed losses, the counts and the gradient norm.

        Raises:
            NonFiniteError: On every worker, before the weights changed.
        """
        own = StepCounts.of(batch, self._config)
        counts = StepCounts.from_vector(self._summed(own.to_vector()))
        parts = []
        for number, micro_batch in enumerate(batch.micro_batches):
            part = micro_batch.to(self._place.device, non_blocking=True)
            if self._teacher is not None:
                null = batch.null_batches[number].to(self._place.device, non_blocking=True)
                part = self._teacher.retarget(part, null)
            sums = losses(self.engine(part), part)
            self.engine.backward(
                loss_from(
                    sums,
                    counts.flow_count,
                    counts.stop_count,
                    self._settings.stop_weight,
                    global_duration_count=counts.duration_count,
                )
            )
            parts.append(sums.to_vector())
        total = torch.zeros(VECTOR_LENGTH, dtype=torch.float64, device=self._place.device)
        total = self._summed(sum(parts, start=total))
        self._require_finite(total, parts, batch)
        try:
            norm = self.engine.step(batch.step)
        except NonFiniteError as error:
            clips = [clip for held in batch.clips for clip in held]
            raise self._not_finite(str(error), batch.step, clips) from error
        self._updates += 1
        return total, counts, norm

    def _require_finite(self, total: Tensor, parts: list[Tensor], batch: StepBatch) -> None:
        """Refuse a loss that is not finite, naming the clips of the micro-batches at fault."""
        if bool(torch.isfinite(total).all()):
            return
        means = LossSums.from_vector(total).means()
        broken = [name for name, value in means.items() if value != value or abs(value) > 1e30]
        clips = [
            clip
            for part, held in zip(parts, batch.clips, strict=True)
            if not bool(torch.isfinite(part).all())
            for clip in held
        ]
        said = f"the loss of step {batch.step} is not finite in {', '.join(broken)}"
        raise self._not_finite(said, batch.step, clips)

    def _not_finite(self, said: str, step: int, suspects: list[str]) -> NonFiniteError:
        """The error of a step that is not finite, with the clips of all workers, which all call
        this."""
        clips = sorted({clip for part in self._place.gather(suspects) for clip in part})
        skip = f"feed.skip_steps=[{step}]"
        return not_finite(said, clips, skip, is_logged=self._place.is_first)

    def _say(self, text: str, *values: object) -> None:
        """Log a line; only rank 0 does."""
        if self._place.is_first:
            logger.info(text, *values)

    def _open_samples(self, shards: TrainShards, tokenizer: Tokenizer) -> Samples | None:
        settings, codec = self._settings.sample, self._plan.codec
        if not settings.every or codec is None or not self._place.is_first:
            return None
        return Samples(settings, shards, Path(codec), tokenizer, self._place.device)

    def _summed(self, vector: Tensor) -> Tensor:
        return self._place.sum(vector).cpu()

    def _log_step(self, step: int) -> None:
        if not self._window.grad_norms:  # every step since the last line was skipped
            return
        settings = self._settings
        metrics = self._window.metrics(self._costs, settings.stop_weight)
        metrics["rate/learning_rate"] = settings.optim.learning_rate * rate_share(
            step - 1, settings.optim
        )
        self._window = Window()
        if not self._place.is_first:
            return
        self._log.add(step, metrics)
        self._tracker.log_metrics(metrics, step)
        more = (
            f"gradient norm {metrics['grad_norm']:.3f}, {speed_note(metrics)}, "
            f"rows {100 * metrics['data/useful_share']:.0f}% full"
        )
        logger.info("%s", step_line(step, settings.optim.num_steps, metrics[TOTAL_LOSS], more))

    def _contents(self) -> tuple[Files, dict[str, Any]]:
        files = engine_files(self._store, self.engine, is_first=self._place.is_first)
        updates = {"updates": self._updates, "world_size": self._place.world_size}
        return files, {**self._facts, **updates}

    def _completed(self, step: int) -> None:
        """Validate, log and make room after a checkpoint; the first worker does."""
        if not self._place.is_first:
            return
        if self._validation is not None and self._validation.is_due(step):
            metrics = self._validation.metrics(self._store, step)
            self._log.add(step, metrics)
            self._tracker.log_metrics(metrics, step)
        self._log.write()
        keep, scores = self._settings.checkpoint, self._log.validation_losses()
        self._store.retain(keep.num_to_keep, lasting_steps(keep, self._store.steps(), scores))
        logger.info("%s", checkpoint_line(step))
        if self._samples is not None and step % self._settings.sample.every == 0:
            self._samples.make(self._store, step, self._run, self._tracker)

    def _finish(self, step: int, state: str) -> dict[str, Any]:
        entries, scores = self._log.trained(), self._log.validation_losses()
        summary = {
            "state": state,
            "step": step,
            "num_steps": self._settings.optim.num_steps,
            "num_parameters": self.engine.num_parameters,
            "num_trained": self.engine.num_trained,
            "first": entries[0] if entries else {},
            "last": entries[-1] if entries else {},
            "seconds": training_seconds(entries),
            "best_step": min(scores, key=scores.__getitem__, default=None),
            "num_workers": self._place.world_size,
            "mlflow_run": None if self._plan.tracking is None else self._plan.tracking.run_id,
        }
        if self._place.is_first:
            self._run.write_json(SUMMARY, summary)
        return summary
