"""Measure a bundle on held-out clips: what the codec loses, what the model makes."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from model.bundle.bundle import Bundle
from model.bundle.limits import RequestError
from model.bundle.request import request_of_clip
from model.bundle.synthesis import SynthesisError, Synthesizer
from model.codec.protocol import AudioCodec
from pipeline.audio_io import read_audio, resample, to_channels
from pipeline.evaluation import distance, frechet, intelligibility, signal
from pipeline.evaluation.held_out import HeldOutClip, choose
from pipeline.settings import Settings
from pipeline.storage import Folder

logger = logging.getLogger(__name__)


class EvaluateSettings(Settings):
    """What is measured, on how much."""

    per_modality: int = Field(8, ge=1)
    """Clips of each modality, of the splits test and validation."""
    num_digits: int = Field(10, ge=0)
    """Further clips of one spoken digit each, for the digit recogniser."""
    max_duration_s: float = Field(8.0, gt=0)
    """Longer clips are left out, seconds; the report counts them."""
    fill_from_training: bool = False
    """Take training clips too where fewer are held out: for tiny corpora, no held-out result."""
    num_flow_steps: int | None = Field(None, ge=1)
    """Flow steps; null takes those of the bundle."""
    guidance_scale: float | None = Field(None, ge=0)
    """Guidance; null takes that of the bundle."""
    seed: int = Field(0, ge=0)
    """Chooses clips and noise."""


@dataclass
class Listening:
    """One clip in the three forms that are compared."""

    clip: HeldOutClip
    real: Tensor
    reconstructed: Tensor
    generated: Tensor | None
    generate_s: float


@dataclass
class Evaluation:
    """Results as plain values, and the waveforms behind them."""

    results: dict[str, Any]
    listenings: list[Listening] = field(default_factory=list)
    sample_rate: int = 0


def evaluate(
    bundle: Bundle,
    data: Folder,
    settings: EvaluateSettings,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Measure a bundle on held-out clips of a prepared directory.

    Args:
        bundle: What is measured.
        data: Output of `prepare`: holds `clips/` and `descriptions/`.
        settings: How much.
        on_progress: Called with clips done and in all.

    Raises:
        IncompleteError: If the data is not complete or no clip of it qualifies.
    """
    choice = choose(
        data.child("clips"),
        data.child("descriptions"),
        per_modality=settings.per_modality,
        num_digits=settings.num_digits,
        max_duration_s=settings.max_duration_s,
        seed=settings.seed,
        fill_from_training=settings.fill_from_training,
    )
    synthesizer = Synthesizer(bundle)
    listenings = []
    for index, clip in enumerate(choice.clips):
        listenings.append(_listen(clip, synthesizer, settings))
        on_progress(index + 1, len(choice.clips))
    rate = bundle.codec.timebase.sample_rate
    results = {
        "bundle_digest": bundle.digest,
        "settings": settings.model_dump(mode="json"),
        "clips": choice.counts,
        "codec": _codec_measures(listenings, rate),
        "generation": _generation_measures(listenings, rate),
        "intelligibility": _intelligibility(listenings, rate),
    }
    return Evaluation(results, listenings, rate)


def _listen(clip: HeldOutClip, synthesizer: Synthesizer, settings: EvaluateSettings) -> Listening:
    codec = synthesizer.bundle.codec
    real = load_clip(clip, codec)
    started = time.perf_counter()
    generated = _generate(clip, synthesizer, settings)
    generate_s = time.perf_counter() - started
    return Listening(clip, real, reconstruct(real, codec), generated, generate_s)


def load_clip(clip: HeldOutClip, codec: AudioCodec) -> Tensor:
    """The clip as the codec takes it, `channels samples`."""
    audio = read_audio(clip.uri, clip.start_s, clip.end_s)
    rate = codec.timebase.sample_rate
    waveform = resample(to_channels(audio.waveform, codec.num_channels), audio.sample_rate, rate)
    return torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32))


def reconstruct(waveform: Tensor, codec: AudioCodec) -> Tensor:
    """What the codec makes of a waveform, at the same length; the posterior's mean is decoded."""
    with torch.inference_mode():
        decoded = codec.decode(codec.encode(waveform[None]).mean)[0]
    return decoded[:, : waveform.shape[-1]].clone()


def _generate(
    clip: HeldOutClip, synthesizer: Synthesizer, settings: EvaluateSettings
) -> Tensor | None:
    request = request_of_clip(
        description=clip.description,
        transcript=clip.transcript,
        language=clip.language,
        modality=clip.modality,
        duration_s=clip.duration_s,
        is_singing=clip.is_singing,
        seed=settings.seed,
        sampling={
            "num_flow_steps": settings.num_flow_steps,
            "guidance_scale": settings.guidance_scale,
        },
    )
    try:
        return torch.cat(list(synthesizer.stream(request)), -1)
    except (RequestError, SynthesisError) as error:
        logger.warning("clip %s was not generated: %s", clip.clip_id, error)
        return None


def _codec_measures(listenings: Sequence[Listening], rate: int) -> dict[str, dict[str, float]]:
    measures: dict[str, Callable[[Tensor, Tensor], float]] = {
        "log_mel_l1": lambda ours, real: distance.log_mel_l1(ours, real, rate),
        "stft_distance": distance.stft_distance,
        "si_sdr_db": distance.si_sdr_db,
    }
    return {
        modality: {
            "clips": len(group),
            **{
                name: float(np.mean([measure(item.reconstructed, item.real) for item in group]))
                for name, measure in measures.items()
            },
        }
        for modality, group in _by_modality(listenings).items()
    }


def _generation_measures(
    listenings: Sequence[Listening], rate: int
) -> dict[str, dict[str, float | None]]:
    return {
        modality: _measure_generated(group, rate)
        for modality, group in _by_modality(listenings).items()
    }


def _measure_generated(group: Sequence[Listening], rate: int) -> dict[str, float | None]:
    made = [item for item in group if item.generated is not None and item.generated.numel()]
    facts = [signal.examine(item.generated, rate) for item in made if item.generated is not None]
    audio_s = sum(fact.duration_s for fact in facts)
    return {
        "clips": len(group),
        "failed": len(group) - len(made),
        "mel_fd": _mel_fd([i.generated for i in made], [i.real for i in group], rate),
        "mel_fd_of_codec": _mel_fd([i.reconstructed for i in group], [i.real for i in group], rate),
        "silent_share": float(np.mean([f.silent_share for f in facts])) if facts else None,
        "clipped_share": float(np.mean([f.clipped_share for f in facts])) if facts else None,
        "level_dbfs": float(np.mean([f.level_dbfs for f in facts])) if facts else None,
        "duration_ratio": audio_s / sum(i.clip.duration_s for i in made) if made else None,
        "real_time_factor": sum(i.generate_s for i in made) / audio_s if audio_s else None,
    }


def _mel_fd(ours: Sequence[Tensor | None], real: Sequence[Tensor], rate: int) -> float | None:
    embedded = [frechet.mel_embedding(clip, rate) for clip in ours if clip is not None]
    if len(embedded) < 2 or len(real) < 2:
        return None
    return frechet.frechet_distance(
        np.stack(embedded), np.stack([frechet.mel_embedding(clip, rate) for clip in real])
    )


def _intelligibility(listenings: Sequence[Listening], rate: int) -> dict[str, Any]:
    if not intelligibility.is_available():
        return {"skipped": "the extra `eval` (pocketsphinx, jiwer) is not installed"}
    english = [
        item
        for item in listenings
        if item.clip.modality == "speech" and (item.clip.language or "").startswith("en")
    ]
    digits = [i for i in english if intelligibility.is_digit(i.clip.transcript or "")]
    sentences = [
        i for i in english if i not in digits and intelligibility.normalise(i.clip.transcript or "")
    ]
    results: dict[str, Any] = {"digit_clips": len(digits), "sentence_clips": len(sentences)}
    for form in ("real", "reconstructed", "generated"):
        results[f"digit_accuracy_{form}"] = _digit_accuracy(digits, form, rate)
        results[f"word_error_rate_{form}"] = _word_error_rate(sentences, form, rate)
    return results


def _digit_accuracy(digits: Sequence[Listening], form: str, rate: int) -> float | None:
    if not digits:
        return None
    clips = [(_form(i, form), rate, i.clip.transcript or "") for i in digits]
    return intelligibility.digit_accuracy(clips)


def _word_error_rate(sentences: Sequence[Listening], form: str, rate: int) -> float | None:
    if not sentences:
        return None
    recogniser = intelligibility.Recogniser()
    heard = [recogniser.transcribe(_form(i, form), rate) for i in sentences]
    return intelligibility.word_error_rate([i.clip.transcript or "" for i in sentences], heard)


def _form(item: Listening, form: str) -> Tensor:
    waveform: Tensor | None = getattr(item, form)
    # A clip that could not be made is heard as silence: a miss, not a smaller denominator.
    return torch.zeros_like(item.real) if waveform is None else waveform


def _by_modality(listenings: Sequence[Listening]) -> dict[str, list[Listening]]:
    groups: dict[str, list[Listening]] = defaultdict(list)
    for item in listenings:
        groups[item.clip.modality].append(item)
    return dict(groups)
