"""Training of the codec: the loop that one worker runs.

It is a plain function of settings, clips and its place in the group; with a world size of one it
needs neither Ray nor a process group. Running it again continues from the last checkpoint and ends
with the same weights as a run that was never interrupted.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from model.codec.registry import codec_files
from model.codec.vae.losses import CodecObjective
from model.optim import adamw, average_decay, parameter_groups, set_rates, update_average
from pipeline.progress import checkpoint_line, step_line
from pipeline.storage import Folder
from pipeline.tracking import RunReference, Tracker
from pipeline.training.codec.adversary import Adversary
from pipeline.training.codec.checkpoint import (
    checkpoint_files,
    hyper_parameters,
    load_checkpoint,
)
from pipeline.training.codec.report import (
    measured_importance,
    validation_losses,
    write_artefacts,
)
from pipeline.training.codec.settings import TrainCodecSettings
from pipeline.training.codec.setup import crop_source, first_codec, first_crops
from pipeline.training.failures import not_finite
from pipeline.training.metrics import Clock, speed_note
from pipeline.training.place import Place
from pipeline.training.resume import load_newest
from pipeline.training.rundir import SUMMARY
from pipeline.training.saving import Files, Saving

logger = logging.getLogger(__name__)

CODEC = "codec"
"""Folder of the finished codec in the output directory."""
RECONSTRUCTIONS = "reconstructions"
"""Folder of validation clips before and after the codec, and of the loss curves."""
METRICS = "metrics.json"
"""Losses and facts of the finished run; its presence says that the run has finished."""
_NOISE = 1 << 20


def run_worker(
    settings: TrainCodecSettings,
    clips: Folder,
    output: Folder,
    *,
    place: Place,
    run: RunReference | None = None,
) -> None:
    """Train to the last step, or to a stop request; the first worker writes the codec and how the
    run ended.

    Args:
        settings: The recipe.
        clips: Complete `clips/` directory.
        output: Directory for checkpoints and the codec.
        place: This worker's place in the group.
        run: MLflow run to log to.

    Raises:
        NonFiniteError: If a loss or gradient is not finite on any worker; raised on all of them.
        DiskFullError: If there is no room for a checkpoint; raised on all of them.
        DamagedError: If no checkpoint is good any more; raised on all of them.
    """
    tracker = Tracker(run if place.is_first else None)
    try:
        training = CodecTraining(settings, clips, output, place)
        training.resume()
        for point in training.steps():
            if place.is_first:
                _log(point, training, tracker)
        if not place.is_first:
            return
        if not training.is_stopped:
            finish(training, clips, output, tracker)
        state = "stopped" if training.is_stopped else "finished"
        last = settings.optim.num_steps
        output.write_json(SUMMARY, {"state": state, "step": training.step, "num_steps": last})
    finally:
        tracker.flush()


def _log(point: dict[str, float], training: CodecTraining, tracker: Tracker) -> None:
    named = {f"codec/{name}": value for name, value in point.items() if name != "step"}
    step, last = int(point["step"]), training.settings.optim.num_steps
    tracker.log_metrics(named | training.times, step)
    logger.info("%s", step_line(step, last, point["total"], speed_note(training.times)))


class CodecTraining:
    """The state of one worker's training, advanced step by step.

    Args:
        settings: The recipe.
        clips: Complete `clips/` directory.
        output: Directory for checkpoints.
        place: This worker's place in the group.

    Attributes:
        is_stopped: Whether a request ended the training before its last step.
        saving: Checkpoints that the run writes.
        times: Times of the last point, as `Clock.metrics`.
    """

    def __init__(
        self, settings: TrainCodecSettings, clips: Folder, output: Folder, place: Place
    ) -> None:
        self.settings, self.place = settings, place
        self.is_stopped = False
        self.saving = Saving(
            output,
            place,
            settings.checkpoint,
            settings.optim.num_steps,
            contents=self._contents,
            completed=self._completed,
        )
        self.codec = first_codec(settings)
        self.num_frames = max(1, round(settings.crops.duration_s * self.codec.timebase.frame_rate))
        self.source = crop_source(settings, clips, "train", self.codec, self.num_frames)
        is_new = settings.init_from is None and not self.saving.store.steps()
        if is_new and self.codec.config.principal_bands:
            self.codec.start_linear(list(first_crops(self.source, settings)))
        self.average = copy.deepcopy(self.codec).to(place.device)
        self.codec = self.codec.to(place.device).train()
        groups = parameter_groups(self.codec, settings.optim)
        self.optimizer = adamw(groups, settings.optim)
        objective = CodecObjective(self.codec, settings.loss, settings.latent_noise)
        self.objective: nn.Module = objective
        if place.world_size > 1:
            devices = [place.device] if place.device.type == "cuda" else None
            self.objective = DistributedDataParallel(objective, device_ids=devices)
        self.adversary: Adversary | None = None
        if settings.adversarial.start_step is not None:
            is_parallel = place.world_size > 1
            channels = self.codec.num_channels
            self.adversary = Adversary(settings, channels, str(place.device), is_parallel)
        self.step = 0
        self.curve: list[dict[str, float]] = []
        self.times: dict[str, float] = {}
        self._clock = Clock()
        self._sums: dict[str, list[float]] = {}

    def resume(self) -> None:
        """Continue from the latest good checkpoint, if there is one.

        Raises:
            DamagedError: If there are checkpoints and none is good.
        """
        load_newest(self.saving.store, self._load, self.place)

    def _load(self, step: int) -> Callable[[], None]:
        tensors, state = load_checkpoint(self.saving.store, step, self._optimizers())

        def restore() -> None:
            """Continue from what was read."""
            self.codec.load_state_dict(tensors["model"])
            if self.adversary is not None:
                self.adversary.load(tensors["discriminators"])
            self.average.load_state_dict(tensors["average"])
            self.step, self.curve, self._sums = step, state["curve"], state["sums"]

        return restore

    def steps(self) -> Iterator[dict[str, float]]:
        """Train to the end, or to a stop request; yields the mean losses since the last point.

        Every logged step is a point, unless all its steps were skipped.
        """
        settings, last, ended = self.settings, self.settings.optim.num_steps, time.monotonic()
        with ThreadPoolExecutor(1, "crops") as loader, self.saving:
            pending = loader.submit(self._batch, self.step)
            while self.step < last and not self.is_stopped:
                batch = pending.result()
                began = time.monotonic()
                self._clock.wait_s += began - ended
                if self.step + 1 < last:
                    pending = loader.submit(self._batch, self.step + 1)
                if batch is None:
                    logger.info("step %d is skipped, as crops.skip_steps says", self.step)
                else:
                    self._update(*batch)
                    self._clock.num_steps += 1
                    self._clock.seconds += time.monotonic() - began
                self.step += 1
                if (self.step % settings.log_every == 0 or self.step == last) and self._sums:
                    yield self._point()
                stepped = time.monotonic()
                self.is_stopped = self.saving.after_step(self.step) and self.step < last
                ended = time.monotonic()
                self._clock.save_s += ended - stepped

    def _batch(self, step: int) -> tuple[Tensor, Tensor] | None:
        if step in self.settings.crops.skip_steps:
            return None
        seed, place = self.settings.seed, self.place
        indices = range(place.rank, self.settings.crops.per_step, place.world_size)
        shape = (2, self.num_frames, self.codec.latent_dim)
        noise = [
            np.random.default_rng([seed, step, index, _NOISE]).standard_normal(shape, np.float32)
            for index in indices
        ]
        waveform = torch.from_numpy(self.source.batch(seed, step, indices))
        return waveform, torch.from_numpy(np.stack(noise, axis=1))

    def _update(self, waveform: Tensor, noise: Tensor) -> None:
        optim, device = self.settings.optim, self.place.device
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
        return torch.autocast(self.place.device.type, torch.bfloat16, enabled=is_half)

    def _finite(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Means over all workers, the same on each; raises on each if one is not finite."""
        own = torch.stack(list(values.values())).detach().float()
        means = (self.place.sum(own) / self.place.world_size).tolist()
        named = dict(zip(values, means, strict=True))
        if bad := ", ".join(name for name, value in named.items() if not math.isfinite(value)):
            every = range(self.settings.crops.per_step)
            clips = self.source.clips(self.settings.seed, self.step, every)
            said = f"step {self.step}: {bad} not finite on some worker"
            skip = f"crops.skip_steps=[{self.step}]"
            raise not_finite(said, clips, skip, is_logged=self.place.is_first)
        return named

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        found: dict[str, torch.optim.Optimizer] = {"optimizer": self.optimizer}
        if self.adversary is not None:
            found["discriminator_optimizer"] = self.adversary.optimizer
        return found

    def _point(self) -> dict[str, float]:
        point = {name: total / count for name, (total, count) in self._sums.items()}
        self.times = self._clock.metrics()
        self._sums, self._clock = {}, Clock()
        self.curve.append({"step": self.step, **point})
        return self.curve[-1]

    def _contents(self) -> tuple[Files, dict[str, Any]]:
        if not self.place.is_first:  # all workers hold the same
            return {}, {}
        tensors = {"model": self.codec.state_dict(), "average": self.average.state_dict()}
        if self.adversary is not None:
            tensors["discriminators"] = self.adversary.discriminators.state_dict()
        optimizers = self._optimizers()
        state = {"curve": self.curve, "sums": self._sums}
        values = {"param_groups": hyper_parameters(optimizers), "state": state}
        return checkpoint_files(tensors, optimizers), values

    def _completed(self, step: int) -> None:
        if self.place.is_first:
            self.saving.store.retain(self.settings.checkpoint.num_to_keep)
            logger.info("%s", checkpoint_line(step))


def finish(training: CodecTraining, clips: Folder, output: Folder, tracker: Tracker) -> None:
    """Measure the averaged codec and write it, its reconstructions and, last, the metrics."""
    settings, codec = training.settings, training.average.eval()
    held_out = crop_source(settings, clips, "validation", codec, training.num_frames)
    importance = measured_importance(codec, held_out, settings.seed, training.place.device)
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
