"""Measure a codec alone on real clips: reconstruction by modality, and statistics of latents."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from model.codec.protocol import AudioCodec, Posterior
from model.codec.vae.losses import views
from model.config import MODALITIES
from pipeline.clip_tables import ClipTables
from pipeline.errors import IncompleteError
from pipeline.evaluation import distance, intelligibility, intervals
from pipeline.evaluation.held_out import HeldOutClip
from pipeline.evaluation.listening import load_clip, reconstruct
from pipeline.settings import Settings
from pipeline.storage import Folder, iter_rows

_COLUMNS = ["clip_id", "uri", "start_s", "end_s", "modality", "language", "split", "duration_s"]
_QUIETEST = 1e-4
"""RMS of a clip, or of its side channel, below which it counts as silent: -80 dBFS."""
DEAD_BELOW_NATS = 0.1
"""A latent dimension with less information than this in each frame counts as unused."""


class EvaluateCodecSettings(Settings):
    """The clips that a codec is measured on."""

    splits: tuple[Literal["train", "validation", "test"], ...] = ("validation", "test")
    """Splits of the clips directory that are read."""
    per_modality: int = Field(40, ge=1)
    """Number of clips of each modality, without single digits."""
    num_digits: int = Field(200, ge=0)
    """Number of further clips of one spoken English digit each, for the digit recogniser."""
    max_duration_s: float = Field(8.0, gt=0)
    """Duration at which longer clips are cut, seconds."""
    seed: int = Field(0, ge=0)
    """Seed of the choice of clips and of the confidence intervals."""


def evaluate_codec(
    codec: AudioCodec,
    clips: Folder,
    settings: EvaluateCodecSettings,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Measures as plain values.

    Args:
        codec: Codec to measure; posterior means are decoded.
        clips: A complete `clips/` directory.
        settings: Number and kinds of clips.
        on_progress: Called with the number of clips done and of all clips.

    Raises:
        IncompleteError: If the directory is not complete or no clip qualifies.
    """
    chosen = choose_clips(clips, settings)
    rate = codec.timebase.sample_rate
    measured: dict[str, list[dict[str, float]]] = defaultdict(list)
    heard: list[tuple[Tensor, Tensor, str]] = []
    latents = _LatentSums(codec.latent_dim)
    silent = 0
    for index, clip in enumerate(chosen):
        real = load_clip(clip, codec)
        if real.square().mean().sqrt() < _QUIETEST:
            silent += 1
            continue
        decoded = reconstruct(real, codec)
        with torch.inference_mode():
            latents.add(codec.encode(real[None]))
        is_digit = _is_english_digit(clip)
        group = "spoken digits" if is_digit else clip.modality
        measured[group].append(reconstruction_measures(decoded, real, rate))
        if is_digit:
            heard.append((real, decoded, clip.transcript or ""))
        on_progress(index + 1, len(chosen))
    return {
        "settings": settings.model_dump(mode="json"),
        "silent_clips": silent,
        "reconstruction": {
            group: {"clips": len(rows), **_means(rows, settings.seed)}
            for group, rows in measured.items()
        },
        "digits": _digits(heard, rate, settings.seed),
        "latents": latents.summary(),
    }


def choose_clips(clips: Folder, settings: EvaluateCodecSettings) -> list[HeldOutClip]:
    """Clips of every modality in an order that only the seed decides, then single digits.

    Raises:
        IncompleteError: If the directory is not complete or no clip qualifies.
    """
    table = ClipTables.of(clips).read_all([*_COLUMNS, "transcript"])
    rows = [row for row in iter_rows(table) if row["split"] in settings.splits]
    rows.sort(key=lambda row: hashlib.sha256(f"{settings.seed}/{row['clip_id']}".encode()).digest())
    found = [_cut(row, settings.max_duration_s) for row in rows]
    digits = [clip for clip in found if _is_english_digit(clip)]
    taken = {clip.clip_id for clip in digits}
    chosen: list[HeldOutClip] = []
    for modality in MODALITIES:
        others = [c for c in found if c.modality == modality and c.clip_id not in taken]
        chosen += others[: settings.per_modality]
    chosen += digits[: settings.num_digits]
    if not chosen:
        raise IncompleteError(f"{clips.uri} has no clip of splits {', '.join(settings.splits)}")
    return chosen


def reconstruction_measures(estimate: Tensor, reference: Tensor, rate: int) -> dict[str, float]:
    """All measures of one pair of waveforms, `channels samples`.

    Side and width are left out where the reference is mono or has a silent side.
    """
    measures = {
        "log_mel_l1": distance.log_mel_l1(estimate, reference, rate),
        "stft_distance": distance.stft_distance(estimate, reference),
        "bandwidth_hz": distance.bandwidth_hz(reference, rate),
        "bandwidth_kept": distance.bandwidth_hz(estimate, rate)
        / distance.bandwidth_hz(reference, rate),
    }
    for name, ours, real in zip(
        ("mid", "side"), views(estimate[None]), views(reference[None]), strict=False
    ):
        if real.square().mean().sqrt() >= _QUIETEST:
            measures[f"si_sdr_{name}_db"] = distance.si_sdr_db(ours, real)
    if "si_sdr_side_db" in measures:
        lost = distance.width_db(reference) - distance.width_db(estimate)
        measures["width_lost_db"] = lost
    return measures


class _LatentSums:
    """Moments of posterior means and KL divergence of every dimension."""

    def __init__(self, latent_dim: int) -> None:
        self.count = 0
        self.powers = torch.zeros(4, latent_dim, dtype=torch.float64)
        self.kl = torch.zeros(latent_dim, dtype=torch.float64)

    def add(self, posterior: Posterior) -> None:
        """Count the frames of a clip."""
        mean, log_std = posterior.mean[0].double(), posterior.log_std[0].double()
        self.count += mean.shape[0]
        self.powers += torch.stack([mean.pow(power).sum(0) for power in (1, 2, 3, 4)])
        self.kl += (0.5 * (mean.square() + (2 * log_std).exp() - 1) - log_std).sum(0)

    def summary(self) -> dict[str, Any]:
        """Statistics over the frames of all clips, in plain numbers."""
        first, second, third, fourth = self.powers / max(1, self.count)
        variance = (second - first.square()).clamp(min=1e-12)
        skew = (third - 3 * first * second + 2 * first**3) / variance**1.5
        central = fourth - 4 * first * third + 6 * first.square() * second - 3 * first**4
        kl = self.kl / max(1, self.count)
        return {
            "frames": self.count,
            "dimensions": len(kl),
            "dead_dimensions": int((kl < DEAD_BELOW_NATS).sum()),
            "kl_nats_per_frame": float(kl.sum()),
            "least_kl_nats": float(kl.min()),
            "std_smallest": float(variance.min().sqrt()),
            "std_largest": float(variance.max().sqrt()),
            "mean_absolute_skew": float(skew.abs().mean()),
            "mean_excess_kurtosis": float((central / variance.square() - 3).mean()),
        }


def _is_english_digit(clip: HeldOutClip) -> bool:
    is_english = (clip.language or "").startswith("en")
    return is_english and intelligibility.is_digit(clip.transcript or "")


def _cut(row: dict[str, Any], max_duration_s: float) -> HeldOutClip:
    transcript = row["transcript"]
    values = {name: row[name] for name in _COLUMNS}
    if row["duration_s"] > max_duration_s:
        start_s = row["start_s"] or 0.0
        values |= {"end_s": start_s + max_duration_s, "duration_s": max_duration_s}
    return HeldOutClip(**values, description="", transcript=transcript)


def _means(rows: Sequence[dict[str, float]], seed: int) -> dict[str, intervals.Estimate]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {
        name: intervals.mean([row[name] for row in rows if name in row], seed) for name in names
    }


def _digits(heard: Sequence[tuple[Tensor, Tensor, str]], rate: int, seed: int) -> dict[str, Any]:
    if not heard:
        return {"clips": 0}
    if not intelligibility.is_available():
        return {"clips": len(heard), "skipped": "the extra `eval` is not installed"}
    recogniser = intelligibility.Recogniser(single_digit=True)
    real = [intelligibility.is_heard(wave, rate, words, recogniser) for wave, _, words in heard]
    decoded = [intelligibility.is_heard(wave, rate, words, recogniser) for _, wave, words in heard]
    lost = [float(before) - float(after) for before, after in zip(real, decoded, strict=True)]
    return {
        "clips": len(heard),
        "accuracy_real": intervals.mean(real, seed),
        "accuracy_reconstructed": intervals.mean(decoded, seed),
        "accuracy_lost": intervals.mean(lost, seed),
    }
