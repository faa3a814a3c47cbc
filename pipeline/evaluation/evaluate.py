"""Measure a bundle on held-out clips: reconstruction by the codec, generation by the model."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from model.bundle.bundle import Bundle
from model.bundle.limits import RequestError
from model.bundle.request import SpeechPrompt, request_of_clip
from model.bundle.synthesis import SynthesisError, Synthesizer
from model.codec.protocol import AudioCodec
from pipeline.continuation import speech_prompt, spoken_recording
from pipeline.evaluation import distance, frechet, intervals, signal
from pipeline.evaluation.class_measures import (
    FAMILIES,
    SOUND_CLASSES,
    Teaching,
    measure_families,
    measure_sound_classes,
    measure_tempo_and_key,
)
from pipeline.evaluation.held_out import HeldOutClip, choose, described_clips
from pipeline.evaluation.listening import Findings, Listening, by_modality, load_clip, reconstruct
from pipeline.evaluation.recogniser import Recogniser, WhisperRecogniser
from pipeline.evaluation.references import choose_references, speaker_embeddings
from pipeline.evaluation.speech_measures import measure_speech, measure_voices
from pipeline.settings import Settings
from pipeline.storage import Folder

logger = logging.getLogger(__name__)


class EvaluateSettings(Settings):
    """Measures of an evaluation, and the clips they are taken on."""

    per_modality: int = Field(8, ge=1)
    """Number of clips of each modality, from the splits test and validation."""
    num_digits: int = Field(10, ge=0)
    """Number of further clips of one spoken digit each, for the digit recogniser."""
    max_duration_s: float = Field(8.0, gt=0)
    """Longest clip, seconds; longer ones are left out and counted."""
    fill_from_training: bool = False
    """Whether training clips are used too if too few are held out. This is for tiny corpora; the
    result is not a held-out one then."""
    num_flow_steps: int | None = Field(None, ge=1)
    """Solver steps for each block; null uses those of the bundle."""
    guidance_scale: float | None = Field(None, ge=0)
    """Scale of classifier-free guidance; null uses that of the bundle."""
    seed: int = Field(0, ge=0)
    """Seed of the choice of clips, the noise, and the confidence intervals."""
    asr: str | None = None
    """Folder of a Whisper model in CTranslate2 form, for word and character error rates and for
    stop errors; null leaves the error rates out. Nothing is downloaded."""
    asr_threads: int = Field(1, ge=1, le=256)
    """CPU threads of the recogniser."""
    american_spelling: bool = True
    """Whether British and American spellings count as the same word in error rates."""
    request_voices: bool = False
    """Whether the model gets the speaker embedding of another recording of the clip's speaker, as
    from a user who clones a voice. Needs a bundle with voices and the directory `latents/` of the
    data."""
    continue_recordings: bool = False
    """Whether the model continues another recording of the clip's speaker, with its transcript:
    voice cloning by continuation. Recordings without a transcript are not continued."""
    classifier_clips: int = Field(1000, ge=0)
    """Largest number of real clips of the training split on which each classifier (sound classes of
    a corpus, instrument families) is trained, and of held-out clips on which it is tested; 0 leaves
    the class measures out. Raise it for more certain figures, lower it to save time."""


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
    recogniser: Recogniser | None = None,
) -> Evaluation:
    """Measure a bundle on held-out clips of a prepared directory.

    Args:
        bundle: Bundle to measure.
        data: Output of `prepare` with `clips/` and `descriptions/`.
        settings: Measures and number of clips.
        on_progress: Called with the number of clips done and of all clips.
        recogniser: Recogniser to use in place of the one in the folder `settings.asr`.

    Raises:
        IncompleteError: If the data is not complete or no clip of it qualifies.
        RecogniserError: If the folder `settings.asr` holds no recogniser.
        ValueError: If voices are requested of a bundle that has none.
    """
    # Loaded first, so that a wrong folder is found before hours of generation.
    ear = recogniser
    if ear is None and settings.asr is not None:
        ear = WhisperRecogniser(Path(settings.asr), settings.asr_threads)
    choice = choose(
        data.child("clips"),
        data.child("descriptions"),
        per_modality=settings.per_modality,
        num_digits=settings.num_digits,
        max_duration_s=settings.max_duration_s,
        seed=settings.seed,
        fill_from_training=settings.fill_from_training,
    )
    pool = described_clips(data.child("clips"), data.child("descriptions"), settings.max_duration_s)
    references = choose_references(choice.clips, pool, settings.seed)
    requested = _requested_voices(bundle, data, references, settings)
    continued = _continued(bundle, references) if settings.continue_recordings else {}
    synthesizer = Synthesizer(bundle)
    listenings = []
    for index, clip in enumerate(choice.clips):
        asked = {
            "voice": requested.get(clip.clip_id),
            "continues": continued.get(clip.clip_id),
        }
        listenings.append(_listen(clip, synthesizer, settings, asked))
        on_progress(index + 1, len(choice.clips))
    rate = bundle.codec.timebase.sample_rate
    findings = _findings(listenings, pool, references, bundle.codec, settings, ear)
    results = {
        "bundle_digest": bundle.digest,
        "weights": {name: bundle.card.get(name) for name in ("run", "step")},
        "settings": settings.model_dump(mode="json"),
        "clips": choice.counts,
        "codec": _codec_measures(listenings, rate, settings.seed),
        "generation": _generation_measures(listenings, rate, settings.seed),
        "measures": findings.measures,
        "not_measured": findings.skipped,
    }
    return Evaluation(results, listenings, rate)


def _findings(
    listenings: Sequence[Listening],
    pool: Sequence[HeldOutClip],
    references: Mapping[str, HeldOutClip],
    codec: AudioCodec,
    settings: EvaluateSettings,
    recogniser: Recogniser | None,
) -> Findings:
    rate, seed = codec.timebase.sample_rate, settings.seed
    found = measure_speech(
        listenings, rate, recogniser, american_spelling=settings.american_spelling, seed=seed
    )
    voices = {clip_id: load_clip(clip, codec) for clip_id, clip in references.items()}
    were_requested = settings.request_voices or settings.continue_recordings
    found.extend(measure_voices(listenings, voices, rate, were_requested=were_requested, seed=seed))
    if settings.classifier_clips:
        teaching = Teaching(pool, codec, settings.classifier_clips, seed)
        found.extend(measure_sound_classes(listenings, teaching))
        found.extend(measure_families(listenings, teaching))
    else:
        found.skipped |= dict.fromkeys((SOUND_CLASSES, FAMILIES), "classifier_clips is 0")
    found.extend(measure_tempo_and_key(listenings, rate, seed))
    return found


def _requested_voices(
    bundle: Bundle,
    data: Folder,
    references: Mapping[str, HeldOutClip],
    settings: EvaluateSettings,
) -> dict[str, Tensor]:
    """Embedding of each clip's reference, from the training data; empty if none is requested."""
    if not settings.request_voices:
        return {}
    if bundle.model.config.speaker_id is None:
        raise ValueError("request_voices is true, but the bundle has no voices: set it to false")
    embeddings = speaker_embeddings(data.child("latents"), {c.clip_id for c in references.values()})
    return {
        clip_id: torch.tensor(embeddings[clip.clip_id])
        for clip_id, clip in references.items()
        if clip.clip_id in embeddings
    }


def _continued(bundle: Bundle, references: Mapping[str, HeldOutClip]) -> dict[str, SpeechPrompt]:
    """The reference of each clip as a prompt, where it can be one."""
    rate = bundle.codec.timebase.sample_rate
    found = {}
    for clip_id, clip in references.items():
        if not clip.transcript:
            continue
        waveform = load_clip(clip, bundle.codec).numpy()
        try:
            recording = spoken_recording(waveform, rate, clip.transcript)
        except RequestError as error:
            logger.warning("clip %s is not continued: %s", clip.clip_id, error)
        else:
            found[clip_id] = speech_prompt(recording, bundle)
    return found


def _listen(
    clip: HeldOutClip,
    synthesizer: Synthesizer,
    settings: EvaluateSettings,
    asked: Mapping[str, Any],
) -> Listening:
    codec = synthesizer.bundle.codec
    real = load_clip(clip, codec)
    started = time.perf_counter()
    generated = _generate(clip, synthesizer, settings, asked)
    generate_s = time.perf_counter() - started
    return Listening(clip, real, reconstruct(real, codec), generated, generate_s)


def _generate(
    clip: HeldOutClip,
    synthesizer: Synthesizer,
    settings: EvaluateSettings,
    asked: Mapping[str, Any],
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
        **asked,
    )
    try:
        return torch.cat(list(synthesizer.stream(request)), -1)
    except (RequestError, SynthesisError) as error:
        logger.warning("clip %s was not generated: %s", clip.clip_id, error)
        return None


def _codec_measures(
    listenings: Sequence[Listening], rate: int, seed: int
) -> dict[str, dict[str, Any]]:
    measures: dict[str, Callable[[Tensor, Tensor], float]] = {
        "log_mel_l1": lambda ours, real: distance.log_mel_l1(ours, real, rate),
        "stft_distance": distance.stft_distance,
        "si_sdr_db": distance.si_sdr_db,
    }
    return {
        modality: {
            "clips": len(group),
            **{
                name: intervals.mean([measure(i.reconstructed, i.real) for i in group], seed)
                for name, measure in measures.items()
            },
        }
        for modality, group in by_modality(listenings).items()
    }


def _generation_measures(
    listenings: Sequence[Listening], rate: int, seed: int
) -> dict[str, dict[str, Any]]:
    return {
        modality: _measure_generated(group, rate, seed)
        for modality, group in by_modality(listenings).items()
    }


def _measure_generated(group: Sequence[Listening], rate: int, seed: int) -> dict[str, Any]:
    made = [item for item in group if item.generated is not None and item.generated.numel()]
    facts = [signal.examine(item.generated, rate) for item in made if item.generated is not None]
    seconds = [fact.duration_s for fact in facts]
    return {
        "clips": len(group),
        "failed": len(group) - len(made),
        "mel_fd": _mel_fd([i.generated for i in made], [i.real for i in group], rate),
        "mel_fd_of_codec": _mel_fd([i.reconstructed for i in group], [i.real for i in group], rate),
        "silent_share": intervals.mean([f.silent_share for f in facts], seed),
        "clipped_share": intervals.mean([f.clipped_share for f in facts], seed),
        "level_dbfs": intervals.mean([f.level_dbfs for f in facts], seed),
        "duration_ratio": intervals.ratio(seconds, [i.clip.duration_s for i in made], seed),
        "real_time_factor": intervals.ratio([i.generate_s for i in made], seconds, seed),
    }


def _mel_fd(ours: Sequence[Tensor | None], real: Sequence[Tensor], rate: int) -> float | None:
    embedded = [frechet.mel_embedding(clip, rate) for clip in ours if clip is not None]
    if len(embedded) < 2 or len(real) < 2:
        return None
    return frechet.frechet_distance(
        np.stack(embedded), np.stack([frechet.mel_embedding(clip, rate) for clip in real])
    )
