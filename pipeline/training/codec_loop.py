"""Training of the codec: the loop one worker runs, and the Ray Train job around it.

The loop is a plain function of settings, clips and its place in the group; with a world size of one
it needs neither Ray nor a process group. Running the same job again goes on from the last
checkpoint and ends in the same weights as a run that was never interrupted.
"""

from __future__ import annotations

import copy
import logging
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from model.codec.losses import CodecObjective
from model.codec.registry import build_codec, codec_files, load_codec
from model.codec.vae import VAECodec
from model.optim import adamw, average_decay, parameter_groups, set_rates, update_average
from pipeline.errors import NonFiniteError
from pipeline.storage import Folder
from pipeline.tracking import RunReference, Tracker
from pipeline.training.codec_adversary import Adversary
from pipeline.training.codec_checkpoint import (
    checkpoint_steps,
    load_checkpoint,
    prune_checkpoints,
    save_checkpoint,
)
from pipeline.training.codec_data import CropSource, read_spans
from pipeline.training.codec_report import (
    validation_losses,
    write_curves,
    write_reconstructions,
)
from pipeline.training.codec_settings import TrainCodecSettings

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
_FIRST_CROPS = 1024
"""Crops whose principal components a codec begins with: those of the first steps."""


@dataclass(frozen=True)
class Worker:
    """One worker's place in the group.

    Attributes:
        rank: From 0.
        world_size: Workers in all.
        device: Where its codec lies.
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
        """Until all workers are here."""
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
    """Train to the last step, and write the codec from the first worker.

    Args:
        settings: The recipe.
        clips: Complete `clips/` directory.
        output: Where checkpoints and the codec go.
        worker: This worker's place.
        run: MLflow run to log to.
        report: Called by every worker with the losses at each logged step.

    Raises:
        NonFiniteError: If a loss or gradient is not finite on any worker; raised on all of them.
    """
    tracker = Tracker(run if worker.rank == 0 else None)
    training = CodecTraining(settings, clips, output, worker)
    training.resume()
    for point in training.steps():
        if worker.rank == 0:
            rate = {"codec/steps_per_s": training.steps_per_s}
            named = {f"codec/{name}": value for name, value in point.items() if name != "step"}
            tracker.log_metrics(named | rate, int(point["step"]))
            logger.info("step %d: loss %.4f", point["step"], point["total"])
        if report is not None:
            report(point)
    worker.wait()
    if worker.rank == 0:
        finish(training, clips, output, tracker)


class CodecTraining:
    """The state of one worker's training, advanced step by step.

    Args:
        settings: The recipe.
        clips: Complete `clips/` directory.
        output: Where checkpoints go.
        worker: This worker's place.
    """

    def __init__(
        self, settings: TrainCodecSettings, clips: Folder, output: Folder, worker: Worker
    ) -> None:
        self.settings, self.worker = settings, worker
        self.checkpoints = output.child(CHECKPOINTS)
        self.codec = first_codec(settings)
        self.num_frames = max(1, round(settings.crops.duration_s * self.codec.timebase.frame_rate))
        self.source = crop_source(settings, clips, "train", self.codec, self.num_frames)
        is_new = settings.init_from is None and not checkpoint_steps(self.checkpoints)
        if is_new and self.codec.config.principal_bands:
            self.codec.begin_linear(list(_first_crops(self.source, settings)))
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
        """Go on from the latest checkpoint, if there is one."""
        found = checkpoint_steps(self.checkpoints)
        if not found:
            return
        tensors, state = load_checkpoint(self.checkpoints, found[-1], self._optimizers())
        self.codec.load_state_dict(tensors["model"])
        if self.adversary is not None:
            self.adversary.load(tensors["discriminators"])
        self.average.load_state_dict(tensors["average"])
        self.step, self.curve, self._sums = found[-1], state["curve"], state["sums"]
        self._clock = (self.step, time.perf_counter())
        logger.info("worker %d goes on from step %d", self.worker.rank, self.step)

    def steps(self) -> Iterator[dict[str, float]]:
        """Train to the end; yields the mean losses since the last point at every logged step."""
        settings, last = self.settings, self.settings.optim.num_steps
        with ThreadPoolExecutor(1, "crops") as loader:
            pending = loader.submit(self._batch, self.step)
            while self.step < last:
                waveform, noise = pending.result()
                if self.step + 1 < last:
                    pending = loader.submit(self._batch, self.step + 1)
                self._update(waveform, noise)
                is_last = self.step == last
                if self.step % settings.log_every == 0 or is_last:
                    yield self._point()
                if self.step % settings.checkpoint_every == 0 or is_last:
                    self._save()

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
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
        self.step += 1
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
            raise NonFiniteError(
                f"step {self.step + 1}: {bad} not finite on some worker; the weights are untouched "
                "since the last checkpoint, try a lower optim.learning_rate"
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
        if self.worker.rank == 0:
            tensors = {"model": self.codec.state_dict(), "average": self.average.state_dict()}
            if self.adversary is not None:
                tensors["discriminators"] = self.adversary.discriminators.state_dict()
            state = {"curve": self.curve, "sums": self._sums}
            save_checkpoint(self.checkpoints, self.step, tensors, self._optimizers(), state)
            prune_checkpoints(self.checkpoints, self.settings.checkpoints_kept)
        self.worker.wait()


def _first_crops(source: CropSource, settings: TrainCodecSettings) -> Iterator[Tensor]:
    """Crops whose principal components a codec begins with; the same for every worker."""
    size = settings.crops.per_step
    for step in range(-(-_FIRST_CROPS // size)):
        yield torch.from_numpy(source.batch(settings.seed, step, range(size)))


def crop_source(
    settings: TrainCodecSettings, clips: Folder, split: str, codec: VAECodec, num_frames: int
) -> CropSource:
    """Crops of one split for a codec; an empty split falls back to the training clips."""
    spans = read_spans(clips, split)
    if not spans and split != "train":
        logger.warning("no clips of split %s; the training clips stand in", split)
        spans = read_spans(clips, "train")
    return CropSource(
        spans,
        sample_rate=codec.timebase.sample_rate,
        num_channels=codec.num_channels,
        crop_samples=codec.timebase.num_samples(num_frames),
        weights=settings.crops.modality_weights,
        memory_limit_bytes=settings.crops.memory_limit_bytes if split == "train" else 0,
    )


def finish(training: CodecTraining, clips: Folder, output: Folder, tracker: Tracker) -> None:
    """Measure the averaged codec and write it, its reconstructions and, last, the metrics."""
    settings, codec = training.settings, training.average.cpu().eval()
    held_out = crop_source(settings, clips, "validation", codec, training.num_frames)
    measured = validation_losses(
        codec, held_out, settings.validation_crops, settings.seed, settings.loss
    )
    _write_artefacts(training, clips, output, tracker)
    for name, payload in codec_files(codec).items():
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


def _write_artefacts(
    training: CodecTraining, clips: Folder, output: Folder, tracker: Tracker
) -> None:
    settings, codec = training.settings, training.average
    num_frames = codec.timebase.frames_in(settings.reconstruction_s)
    source = crop_source(settings, clips, "validation", codec, num_frames)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_reconstructions(folder, codec, source, settings.reconstructions, settings.seed)
        write_curves(folder / "curves.png", training.curve)
        for path in sorted(folder.iterdir()):
            output.child(RECONSTRUCTIONS).write_bytes(path.name, path.read_bytes())
            tracker.log_file(path, RECONSTRUCTIONS)


def first_codec(settings: TrainCodecSettings) -> VAECodec:
    """The codec as a run begins: drawn from the seed, or the weights of `init_from`.

    Raises:
        FileNotFoundError: If `init_from` holds no codec.
        ValueError: If it has another configuration than the recipe, or cannot be trained here.
    """
    config = settings.codec_config()
    if settings.init_from is None:
        return _trainable(build_codec(config, settings.seed))
    codec = _trainable(load_codec(settings.init_from))
    found = codec.config_dict()
    if differing := [name for name in config if config[name] != found.get(name)]:
        raise ValueError(
            f"init_from {settings.init_from} has another "
            + ", ".join(f"{name} ({found.get(name)}, not {config[name]})" for name in differing)
            + "; give its preset and codec fields"
        )
    return codec


def _trainable(codec: Any) -> VAECodec:
    if not isinstance(codec, VAECodec):
        raise ValueError(f"codec {codec.name!r} cannot be trained here; use the vae architecture")
    return codec
