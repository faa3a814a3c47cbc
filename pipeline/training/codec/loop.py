"""Training of the codec: the loop one worker runs, and the Ray Train job around it.

The loop is a plain function of settings, clips and its place in the group; with a world size of one
it needs neither Ray nor a process group. Running the same job again continues from the last
checkpoint and ends with the same weights as a run that was never interrupted.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from model.codec.registry import codec_files
from model.codec.vae.losses import CodecObjective
from model.optim import adamw, average_decay, parameter_groups, set_rates, update_average
from pipeline.errors import DamagedError, DiskFullError, NonFiniteError
from pipeline.progress import checkpoint_line, step_line
from pipeline.storage import Folder
from pipeline.tracking import RunReference, Tracker
from pipeline.training.checkpoint_store import disk_full_noted
from pipeline.training.codec.adversary import Adversary
from pipeline.training.codec.checkpoint import (
    checkpoint_steps,
    load_checkpoint,
    prune_checkpoints,
    remove_checkpoint,
    save_checkpoint,
)
from pipeline.training.codec.report import (
    measured_importance,
    validation_losses,
    write_artefacts,
)
from pipeline.training.codec.settings import TrainCodecSettings
from pipeline.training.codec.setup import crop_source, first_codec, first_crops
from pipeline.training.rundir import STOP_REQUEST

logger = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
"""Folder of checkpoints in the output directory."""
CODEC = "codec"
"""Folder of the finished codec in the output directory."""
RECONSTRUCTIONS = "reconstructions"
"""Folder of validation clips before and after the codec, and of the loss curves."""
METRICS = "metrics.json"
"""Losses and facts of the finished run; its presence says that the run has finished."""
_NOISE = 1 << 20
_POLL_SECONDS = 1.0
_NAMED_CLIPS = 12


@dataclass(frozen=True)
class Worker:
    """One worker's place in the group.

    Attributes:
        rank: Number of the worker, from 0.
        world_size: Number of workers.
        device: Device of its codec.
    """

    rank: int = 0
    world_size: int = 1
    device: str = "cpu"

    def mean(self, values: Tensor) -> Tensor:
        """Mean over all workers, the same bits on each."""
        if self.world_size == 1:
            return values
        dist.all_reduce(values)
        return values / self.world_size

    def wait(self) -> None:
        """Wait for all workers."""
        if self.world_size > 1:
            dist.barrier()


def run_worker(
    settings: TrainCodecSettings,
    clips: Folder,
    output: Folder,
    *,
    worker: Worker,
    run: RunReference | None = None,
    report: Callable[[dict[str, float]], None] | None = None,
) -> None:
    """Train to the last step and write the codec from the first worker, or stop on request.

    Args:
        settings: The recipe.
        clips: Complete `clips/` directory.
        output: Directory for checkpoints and the codec.
        worker: This worker's place in the group.
        run: MLflow run to log to.
        report: Called by every worker with the losses at each logged step.

    Raises:
        NonFiniteError: If a loss or gradient is not finite on any worker; raised on all of them.
        DiskFullError: If there is no room for a checkpoint; raised on all of them.
        DamagedError: If no checkpoint is good any more; raised on all of them.
    """
    tracker = Tracker(run if worker.rank == 0 else None)
    try:
        _train(settings, clips, output, worker, tracker, report)
    finally:
        tracker.flush()


def _train(
    settings: TrainCodecSettings,
    clips: Folder,
    output: Folder,
    worker: Worker,
    tracker: Tracker,
    report: Callable[[dict[str, float]], None] | None,
) -> None:
    training = CodecTraining(settings, clips, output, worker)
    training.resume()
    for point in training.steps():
        if worker.rank == 0:
            rate = {"codec/steps_per_s": training.steps_per_s}
            named = {f"codec/{name}": value for name, value in point.items() if name != "step"}
            step = int(point["step"])
            tracker.log_metrics(named | rate, step)
            logger.info("%s", step_line(step, settings.optim.num_steps, point["total"]))
        if report is not None:
            report(point)
    worker.wait()
    if worker.rank == 0 and not training.is_stopped:
        finish(training, clips, output, tracker)


class CodecTraining:
    """The state of one worker's training, advanced step by step.

    Args:
        settings: The recipe.
        clips: Complete `clips/` directory.
        output: Directory for checkpoints.
        worker: This worker's place in the group.
    """

    def __init__(
        self, settings: TrainCodecSettings, clips: Folder, output: Folder, worker: Worker
    ) -> None:
        self.settings, self.worker = settings, worker
        self.checkpoints = output.child(CHECKPOINTS)
        self.is_stopped = False
        """Whether a request ended the training before its last step."""
        self._output, self._polled = output, 0.0
        self.codec = first_codec(settings)
        self.num_frames = max(1, round(settings.crops.duration_s * self.codec.timebase.frame_rate))
        self.source = crop_source(settings, clips, "train", self.codec, self.num_frames)
        is_new = settings.init_from is None and not checkpoint_steps(self.checkpoints)
        if is_new and self.codec.config.principal_bands:
            self.codec.start_linear(list(first_crops(self.source, settings)))
        self.average = copy.deepcopy(self.codec).to(worker.device)
        self.codec = self.codec.to(worker.device).train()
        groups = parameter_groups(self.codec, settings.optim)
        self.optimizer = adamw(groups, settings.optim)
        objective = CodecObjective(self.codec, settings.loss, settings.latent_noise)
        self.objective: nn.Module = objective
        if worker.world_size > 1:
            devices = [worker.device] if worker.device.startswith("cuda") else None
            self.objective = DistributedDataParallel(objective, device_ids=devices)
        self.adversary: Adversary | None = None
        if settings.adversarial.start_step is not None:
            is_parallel = worker.world_size > 1
            channels = self.codec.num_channels
            self.adversary = Adversary(settings, channels, worker.device, is_parallel)
        self.step = 0
        self.curve: list[dict[str, float]] = []
        self.steps_per_s = 0.0
        self._sums: dict[str, list[float]] = {}
        self._clock = (0, time.perf_counter())

    def resume(self) -> None:
        """Continue from the latest good checkpoint, if there is one.

        Raises:
            DamagedError: If there are checkpoints and none is good.
        """
        damage: dict[int, str] = {}
        for step in reversed(checkpoint_steps(self.checkpoints)):
            try:
                tensors, state = load_checkpoint(self.checkpoints, step, self._optimizers())
            except DamagedError as error:
                damage[step] = str(error)
                continue
            break
        else:
            if damage:
                raise DamagedError(
                    f"no checkpoint in {self.checkpoints.uri} is good any more "
                    f"({'; '.join(damage.values())}); restore one, or remove that directory to "
                    "train from the beginning"
                )
            return
        if self.worker.rank == 0:
            for number, said in damage.items():
                logger.warning(
                    "the checkpoint of step %d is damaged and removed (%s); step %d takes its "
                    "place",
                    number,
                    said,
                    step,
                )
                remove_checkpoint(self.checkpoints, number)
        self.codec.load_state_dict(tensors["model"])
        if self.adversary is not None:
            self.adversary.load(tensors["discriminators"])
        self.average.load_state_dict(tensors["average"])
        self.step, self.curve, self._sums = step, state["curve"], state["sums"]
        self._clock = (self.step, time.perf_counter())
        logger.info("worker %d continues from step %d", self.worker.rank, self.step)

    def steps(self) -> Iterator[dict[str, float]]:
        """Train to the end, or to a stop request; yields the mean losses since the last point.

        Every logged step is a point, unless all its steps were skipped.
        """
        settings, last = self.settings, self.settings.optim.num_steps
        with ThreadPoolExecutor(1, "crops") as loader:
            pending = loader.submit(self._batch, self.step)
            while self.step < last and not self.is_stopped:
                batch = pending.result()
                if self.step + 1 < last:
                    pending = loader.submit(self._batch, self.step + 1)
                if batch is None:
                    logger.info("step %d is skipped, as crops.skip_steps says", self.step)
                else:
                    self._update(*batch)
                self.step += 1
                is_last = self.step == last
                self.is_stopped = self._wants_stop() and not is_last
                if (self.step % settings.log_every == 0 or is_last) and self._sums:
                    yield self._point()
                if self.step % settings.checkpoint_every == 0 or is_last or self.is_stopped:
                    self._save()

    def _wants_stop(self) -> bool:
        """Whether a stop was requested; rank 0 checks at intervals, and the mean informs all
        workers."""
        now, asked = time.monotonic(), False
        if self.worker.rank == 0 and now - self._polled >= _POLL_SECONDS:
            self._polled = now
            asked = self._output.exists(STOP_REQUEST)
        return self._on_any_worker(asked)

    def _on_any_worker(self, is_true: bool) -> bool:
        flag = torch.tensor([float(is_true)], device=self.worker.device)
        return bool(self.worker.mean(flag)[0] > 0)

    def _batch(self, step: int) -> tuple[Tensor, Tensor] | None:
        if step in self.settings.crops.skip_steps:
            return None
        seed, worker = self.settings.seed, self.worker
        indices = range(worker.rank, self.settings.crops.per_step, worker.world_size)
        shape = (2, self.num_frames, self.codec.latent_dim)
        noise = [
            np.random.default_rng([seed, step, index, _NOISE]).standard_normal(shape, np.float32)
            for index in indices
        ]
        waveform = torch.from_numpy(self.source.batch(seed, step, indices))
        return waveform, torch.from_numpy(np.stack(noise, axis=1))

    def _update(self, waveform: Tensor, noise: Tensor) -> None:
        optim, device = self.settings.optim, self.worker.device
        set_rates(self.optimizer.param_groups, self.step, optim)
        real = waveform.to(device)
        is_judged = self.adversary is not None and self.settings.adversarial.is_due(self.step)
        with self._autocast():
            losses, fake = self.objective(real, noise.to(device), is_judged)
        measured: dict[str, float] = {}
        if self.adversary is not None and is_judged:
            with self._autocast():
                told = self.adversary.differentiate(real, fake)
            measured |= self._finite(told)
            self.adversary.update(self.step)
            with self._autocast():
                asked = self.adversary.terms(real, fake)
            losses = losses | asked | {"total": losses["total"] + asked["total"]}
        self.optimizer.zero_grad(set_to_none=True)
        losses["total"].backward()
        limit = optim.clip_norm or float("inf")
        norm = nn.utils.clip_grad_norm_(self.codec.parameters(), limit)
        measured |= self._finite({**losses, "gradient_norm": norm})
        self.optimizer.step()
        decay = average_decay(self.step, optim)
        update_average(list(self.average.parameters()), list(self.codec.parameters()), decay)
        for name, value in measured.items():
            total, count = self._sums.get(name, [0.0, 0.0])
            self._sums[name] = [total + value, count + 1]

    def _autocast(self) -> torch.autocast:
        is_half = self.settings.precision == "bfloat16"
        kind = torch.device(self.worker.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=is_half)

    def _finite(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Means over all workers, the same on each; raises on each if one is not finite."""
        means = self.worker.mean(torch.stack(list(values.values())).detach().float()).tolist()
        named = dict(zip(values, means, strict=True))
        if bad := ", ".join(name for name, value in named.items() if not math.isfinite(value)):
            crops = self.settings.crops
            clips = self.source.clips(self.settings.seed, self.step, range(crops.per_step))
            more = len(clips) - _NAMED_CLIPS
            if self.worker.rank == 0:
                logger.error("step %d: %s not finite; its clips: %s", self.step, bad, clips)
            raise NonFiniteError(
                f"step {self.step}: {bad} not finite on some worker; the last checkpoint is sound. "
                f"The step's clips: {', '.join(clips[:_NAMED_CLIPS])}"
                f"{f' and {more} more, see the log' * (more > 0)}. Run the same command again with "
                "a lower optim.learning_rate or optim.clip_norm, or skip this step with "
                f"--set crops.skip_steps=[{self.step}]"
            )
        return named

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        found: dict[str, torch.optim.Optimizer] = {"optimizer": self.optimizer}
        if self.adversary is not None:
            found["discriminator_optimizer"] = self.adversary.optimizer
        return found

    def _point(self) -> dict[str, float]:
        point = {name: total / count for name, (total, count) in self._sums.items()}
        self._sums = {}
        begin, since = self._clock
        self._clock = (self.step, time.perf_counter())
        self.steps_per_s = (self.step - begin) / max(1e-9, self._clock[1] - since)
        self.curve.append({"step": self.step, **point})
        return self.curve[-1]

    def _save(self) -> None:
        problems: list[str] = []
        if self.worker.rank == 0:
            tensors = {"model": self.codec.state_dict(), "average": self.average.state_dict()}
            if self.adversary is not None:
                tensors["discriminators"] = self.adversary.discriminators.state_dict()
            state = {"curve": self.curve, "sums": self._sums}
            with disk_full_noted() as problems:
                save_checkpoint(self.checkpoints, self.step, tensors, self._optimizers(), state)
                prune_checkpoints(self.checkpoints, self.settings.checkpoints_kept)
            if problems:
                remove_checkpoint(self.checkpoints, self.step)
            else:
                logger.info("%s", checkpoint_line(self.step))
        if self._on_any_worker(bool(problems)):
            good = [step for step in checkpoint_steps(self.checkpoints) if step != self.step]
            newest = f"step {good[-1]} is the newest good one" if good else "there is none before"
            raise DiskFullError(
                f"no room for the checkpoint of step {self.step} in {self.checkpoints.uri}: "
                f"{' '.join(problems)}; {newest}. Free some space or lower checkpoints_kept, then "
                "run the same command again to continue"
            )


def finish(training: CodecTraining, clips: Folder, output: Folder, tracker: Tracker) -> None:
    """Measure the averaged codec and write it, its reconstructions and, last, the metrics."""
    settings, codec = training.settings, training.average.eval()
    held_out = crop_source(settings, clips, "validation", codec, training.num_frames)
    importance = measured_importance(codec, held_out, settings.seed, training.worker.device)
    codec = codec.cpu()
    measured = validation_losses(
        codec, held_out, settings.validation_crops, settings.seed, settings.loss
    )
    write_artefacts(settings, codec, training.curve, clips, output.child(RECONSTRUCTIONS), tracker)
    for name, payload in codec_files(codec, importance).items():
        output.child(CODEC).write_bytes(name, payload)
    tracker.log_metrics({f"codec/validation_{k}": v for k, v in measured.items()}, training.step)
    metrics = {
        "steps": training.step,
        "parameters": sum(parameter.numel() for parameter in codec.parameters()),
        "loss_first": training.curve[0]["total"],
        "loss_last": training.curve[-1]["total"],
        "validation": measured,
        "unreadable_clips": training.source.num_unreadable,
        "curve": training.curve,
    }
    output.write_json(METRICS, metrics)
    logger.info(
        "codec of %d parameters: loss %.4f to %.4f, validation %.4f",
        metrics["parameters"],
        metrics["loss_first"],
        metrics["loss_last"],
        measured["total"],
    )
