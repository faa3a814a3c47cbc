"""Estimate of the time to encode a corpus, and of the size of its latents."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.errors import SettingsError

_STORED_BYTES = 4
"""Bytes of one latent value: mean and log-std, float16 each."""


@dataclass(frozen=True)
class EncodePlan:
    """Estimates of `audiocalm encode`.

    Attributes:
        hours: Wall-clock hours.
        worker_hours: Hours of all workers together.
        latent_bytes: Size of the latents, without tar headers, embeddings and attributes.
    """

    hours: float
    worker_hours: float
    latent_bytes: float


def plan_encoding(
    audio_hours: float,
    num_workers: int,
    real_time_factor: float,
    frame_rate: float,
    latent_dim: int,
) -> EncodePlan:
    """Estimate the stage.

    Args:
        audio_hours: Hours of audio.
        num_workers: Workers that encode at once, one per GPU or one per CPU core.
        real_time_factor: Seconds that one worker takes per second of audio.
        frame_rate: Latent frames per second, Hz.
        latent_dim: Width of one latent frame.

    Raises:
        SettingsError: If hours, workers or the real-time factor are not positive.
    """
    given = {
        "hours": audio_hours,
        "num_workers": num_workers,
        "real_time_factor": real_time_factor,
    }
    for name, value in given.items():
        if not 0 < value < math.inf:
            raise SettingsError(f"{name} is {value}; it must be positive and finite")
    worker_hours = audio_hours * real_time_factor
    frames = audio_hours * 3600 * frame_rate
    return EncodePlan(
        hours=worker_hours / num_workers,
        worker_hours=worker_hours,
        latent_bytes=frames * latent_dim * _STORED_BYTES,
    )


def encode_report(plan: EncodePlan, num_workers: int, price_per_hour: float | None) -> str:
    """The plan as lines for a terminal.

    Args:
        plan: Estimates from `plan_encoding`.
        num_workers: Number of workers that they were made for.
        price_per_hour: Price of one worker (one GPU) for one hour.
    """
    cost = "unknown; give --price per GPU hour"
    if price_per_hour is not None:
        cost = f"{plan.worker_hours * price_per_hour:,.0f} at {price_per_hour:g} per worker hour"
    return "\n".join(
        [
            f"time     {plan.hours:,.2f} h with {num_workers} worker(s), "
            f"{plan.worker_hours:,.1f} worker hours",
            f"latents  {plan.latent_bytes / 1e9:,.2f} GB",
            f"cost     {cost}",
            "",
            "Assumptions",
            "- all workers are busy until the end, and reading the clips keeps up with them",
            "- latents are means and log-stds in float16; tar headers, speaker embeddings and",
            "  attributes come on top",
        ]
    )
