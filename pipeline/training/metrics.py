"""Metrics of a run: losses, speed, use of rows and of the device."""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from model.config import ModelConfig
from model.cost import Counts, batch_counts, training_flops
from model.objective import DURATION_WEIGHT, VECTOR_LENGTH, LossSums
from pipeline.storage import Folder
from pipeline.training.feed import StepBatch
from pipeline.training.hardware import peak_flops

METRICS = "metrics.jsonl"
"""File of the run directory with one JSON object for each logged step."""

TOTAL_LOSS = "loss/total"
"""The loss that training minimises."""
VALIDATION = "validation/"
"""Prefix of the metrics of held-out clips."""
_SECONDS = "rate/seconds"
"""Seconds since the last logged step, or the start."""


@dataclass(frozen=True)
class StepCounts:
    """Counts of a step, summed over workers, among them the denominators of its losses."""

    flow_count: float
    stop_count: float
    duration_count: float
    documents: float
    cropped: float
    positions: float
    expert_positions: float
    attention_pairs: float
    noisy_frames: float
    noisy_blocks: float
    row_positions: float

    @classmethod
    def of(cls, batch: StepBatch, config: ModelConfig) -> StepCounts:
        """Count one worker's part."""
        micro = batch.micro_batches
        held = sum((batch_counts(config, part) for part in micro), start=Counts())
        return cls(
            flow_count=sum(float(part.flow_mask.sum()) for part in micro),
            stop_count=sum(float(part.stop_mask.sum()) for part in micro),
            duration_count=sum(float(part.is_word.sum()) for part in micro),
            documents=batch.num_documents,
            cropped=batch.num_cropped,
            positions=batch.num_positions,
            expert_positions=held.expert_positions,
            attention_pairs=held.pairs,
            noisy_frames=held.noisy_frames,
            noisy_blocks=held.noisy_blocks,
            row_positions=sum(part.num_positions for part in micro),
        )

    def to_vector(self) -> Tensor:
        """The counts as one vector, to be summed over workers."""
        return torch.tensor(
            [float(getattr(self, item.name)) for item in fields(self)], dtype=torch.float64
        )

    @classmethod
    def from_vector(cls, vector: Tensor) -> StepCounts:
        """Inverse of `to_vector`."""
        return cls(*vector.tolist())


@dataclass
class Clock:
    """Time since the last logged step.

    Attributes:
        num_steps: Steps that were taken.
        seconds: Time of the steps themselves.
        wait_s: Time that the steps waited for their batches.
        save_s: Time that steps waited for checkpoints, with their validation and samples.
    """

    num_steps: int = 0
    seconds: float = 0.0
    wait_s: float = 0.0
    save_s: float = 0.0

    def metrics(self) -> dict[str, float]:
        """The times, named `rate/...` and `time/...`."""
        return {
            _SECONDS: self.seconds,
            "rate/seconds_per_step": self.seconds / max(1, self.num_steps),
            "time/data_wait_share": self.wait_s / max(self.seconds + self.wait_s, 1e-9),
            "time/save_s": self.save_s,
        }


def speed_note(metrics: Mapping[str, float]) -> str:
    """The times of `Clock.metrics` for the progress line."""
    return (
        f"{metrics['rate/seconds_per_step']:.2f} s a step, "
        f"data wait {100 * metrics['time/data_wait_share']:.0f}%"
    )


@dataclass
class Window:
    """Sums since the last logged step.

    Attributes:
        sums: Losses, as `LossSums.to_vector`.
        counts: Counts of the steps, as `StepCounts.to_vector` gives them.
        grad_norms: Gradient norm of every step.
        clock: Time.
    """

    sums: Tensor = field(default_factory=lambda: torch.zeros(VECTOR_LENGTH, dtype=torch.float64))
    counts: Tensor = field(
        default_factory=lambda: torch.zeros(len(fields(StepCounts)), dtype=torch.float64)
    )
    grad_norms: list[float] = field(default_factory=list)
    clock: Clock = field(default_factory=Clock)

    def add(self, sums: Tensor, counts: StepCounts, grad_norm: float, seconds: float) -> None:
        """Add one step."""
        self.sums += sums
        self.counts += counts.to_vector()
        self.grad_norms.append(grad_norm)
        self.clock.num_steps += 1
        self.clock.seconds += seconds

    def metrics(self, costs: Costs, stop_weight: float) -> dict[str, float]:
        """Averages over the window, named `loss/...`, `rate/...` and `data/...`."""
        counts, seconds = StepCounts.from_vector(self.counts), self.clock.seconds
        metrics = loss_metrics(LossSums.from_vector(self.sums), stop_weight)
        metrics |= {
            **self.clock.metrics(),
            "grad_norm": sum(self.grad_norms) / max(1, len(self.grad_norms)),
            "rate/positions_per_s": counts.positions / max(seconds, 1e-9),
            "data/useful_share": counts.positions / max(1.0, counts.row_positions),
            "data/documents": counts.documents,
            "data/cropped": counts.cropped,
        }
        utilisation = costs.utilisation(counts, seconds)
        if utilisation is not None:
            metrics["rate/mfu"] = utilisation
        return metrics


def loss_metrics(sums: LossSums, stop_weight: float) -> dict[str, float]:
    """Averages named `loss/...` and `flow_time/...`; `loss/total` is what training minimises."""
    means = sums.means()
    total = means.get("flow", 0.0) + stop_weight * means.get("stop", 0.0)
    total += DURATION_WEIGHT * means.get("duration", 0.0)
    metrics = {
        name if name.startswith("flow_time/") else f"loss/{name}": value
        for name, value in means.items()
    }
    return {**metrics, TOTAL_LOSS: total}


def training_seconds(entries: Sequence[Mapping[str, float]]) -> float:
    """Time of all steps that a log holds, without set-up and checkpoints."""
    return sum(entry.get(_SECONDS, 0.0) for entry in entries)


@dataclass(frozen=True)
class Costs:
    """Floating-point operations of training, and what the devices could do.

    Attributes:
        config: The model's configuration; `model.cost` counts from it.
        peak: Operations per second of all devices together; None if their speed is not known.
    """

    config: ModelConfig
    peak: float | None

    @classmethod
    def of(cls, config: ModelConfig, device: torch.device, world_size: int) -> Costs:
        """Costs for the workers of a run, which have equal devices."""
        peak = None
        if device.type == "cuda":
            of_one = peak_flops(torch.cuda.get_device_name(device))
            peak = None if of_one is None else of_one * world_size
        return cls(config, peak)

    def utilisation(self, counts: StepCounts, seconds: float) -> float | None:
        """Share of the devices' peak spent on positions that hold a document.

        Padding, recomputed layers and pairs that the mask forbids do not count.
        """
        if self.peak is None or seconds <= 0:
            return None
        held = Counts(
            documents=int(counts.documents),
            positions=int(counts.positions),
            expert_positions=int(counts.expert_positions),
            pairs=int(counts.attention_pairs),
            noisy_frames=int(counts.noisy_frames),
            noisy_blocks=int(counts.noisy_blocks),
        )
        return training_flops(self.config, held) / (seconds * self.peak)


class MetricsLog:
    """The logged steps of a run, kept across restarts.

    Args:
        folder: Run directory.
        step: Number of steps already taken; lines of later steps belong to a lost attempt and are
            dropped.
    """

    def __init__(self, folder: Folder, step: int) -> None:
        self._folder = folder
        stored = folder.read_bytes(METRICS).decode() if folder.exists(METRICS) else ""
        entries = [json.loads(line) for line in stored.splitlines()]
        self.entries: list[dict[str, Any]] = [e for e in entries if e["step"] <= step]

    def add(self, step: int, metrics: dict[str, float]) -> None:
        """Record metrics of a step, beside those that it already has."""
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        at = bisect_left(self.entries, step, key=itemgetter("step"))
        if at == len(self.entries) or self.entries[at]["step"] != step:
            self.entries.insert(at, {"step": step})
        self.entries[at].update(finite)

    def trained(self) -> list[dict[str, Any]]:
        """The entries with losses of training."""
        return [entry for entry in self.entries if TOTAL_LOSS in entry]

    def validation_losses(self) -> dict[int, float]:
        """Total validation loss by step."""
        name = f"{VALIDATION}{TOTAL_LOSS}"
        return {entry["step"]: entry[name] for entry in self.entries if name in entry}

    def write(self) -> None:
        """Write all records to disk."""
        text = "".join(json.dumps(entry, sort_keys=True) + "\n" for entry in self.entries)
        self._folder.write_bytes(METRICS, text.encode())
