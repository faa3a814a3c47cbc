"""Rows of the table of `make gpu-check`, and what is measured at which size."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from model.config import ModelConfig, preset

Verdict = str
"""`ok`, `FAILED`, `measured` where nothing is expected, or `not run: <reason>`."""


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        part: What was run.
        measure: What was measured.
        value: The figure with its unit.
        expected: What it should be.
        verdict: Whether it is.
    """

    part: str
    measure: str
    value: str
    expected: str = ""
    verdict: Verdict = "measured"

    @staticmethod
    def header() -> str:
        """Head of a markdown table."""
        return "| part | measure | value | expected | verdict |\n|---|---|---|---|---|"

    def __str__(self) -> str:
        return f"| {' | '.join(dataclasses.astuple(self))} |"


@dataclass(frozen=True)
class Plan:
    """Sizes of a check.

    Attributes:
        presets: Models whose training step is measured.
        recomputed: Those whose layers are always recomputed.
        sampler: Model that samples.
        pack_length: Positions of a training row.
        num_steps: Steps timed, after one that warms up.
        audio_s: Audio of one request.
        batch: Requests that run together.
        max_layers: Cuts the models; None keeps all layers.
        is_rehearsal: Whether this only rehearses the code, on a CPU.
    """

    presets: tuple[str, ...]
    recomputed: tuple[str, ...]
    sampler: str
    pack_length: int
    num_steps: int
    audio_s: float
    batch: int
    max_layers: int | None
    is_rehearsal: bool

    @staticmethod
    def full() -> Plan:
        """For one GPU of 80 GB or more; what does not fit is reported as not run."""
        return Plan(
            presets=("0.6b", "1.7b", "4b"),
            recomputed=("4b",),
            sampler="1.7b",
            pack_length=8192,
            num_steps=3,
            audio_s=10.0,
            batch=32,
            max_layers=None,
            is_rehearsal=False,
        )

    @staticmethod
    def rehearsal() -> Plan:
        """The same code in seconds on a CPU."""
        return Plan(
            presets=("tiny",),
            recomputed=(),
            sampler="tiny",
            pack_length=256,
            num_steps=1,
            audio_s=0.7,
            batch=3,
            max_layers=1,
            is_rehearsal=True,
        )

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return torch.device("cpu" if self.is_rehearsal else "cuda")

    def config(self, name: str) -> ModelConfig:
        """A preset, cut to `max_layers`."""
        config = preset(name)
        layers = min(config.backbone.num_layers, self.max_layers or config.backbone.num_layers)
        backbone = dataclasses.replace(config.backbone, num_layers=layers)
        return dataclasses.replace(config, backbone=backbone)
