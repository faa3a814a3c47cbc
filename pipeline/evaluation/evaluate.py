"""Measure a bundle on held-out clips: reconstruction by the codec, generation by the model."""

from __future__ import annotations

import itertools
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.bundle.bundle import Bundle, load_bundle
from pipeline.evaluation import intelligibility, intervals
from pipeline.evaluation.clap import ClapEmbedding
from pipeline.evaluation.class_metric import FAMILIES, SOUND_CLASSES, ClassMetric
from pipeline.evaluation.clip_worker import ClipCache, ClipTask, Sampling, listen
from pipeline.evaluation.comparison import (
    CLIPS,
    RESULTS,
    badness,
    clip_values,
    compare,
    read_other,
)
from pipeline.evaluation.embedding_metric import EmbeddingMetric, MelStatistics
from pipeline.evaluation.execution import run_tasks
from pipeline.evaluation.findings import FORMS, Evidence, Findings
from pipeline.evaluation.held_out import (
    Choice,
    HeldOutClip,
    choose,
    cluster_of,
    described_clips,
)
from pipeline.evaluation.listening import Listening
from pipeline.evaluation.metric import Metric
from pipeline.evaluation.music_metric import MusicMetric
from pipeline.evaluation.onnx_network import OnnxEmbedding, OpinionMetric
from pipeline.evaluation.quality_metric import QualityMetric
from pipeline.evaluation.recogniser import Recogniser, WhisperRecogniser
from pipeline.evaluation.references import choose_references, speaker_embeddings
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.evaluation.signal_metric import SignalMetric
from pipeline.evaluation.speech_metrics import (
    DIGITS,
    NO_ASR,
    NO_SPHINX,
    WORDS,
    SphinxMetric,
    StopMetric,
    WordsMetric,
    heard_words,
)
from pipeline.evaluation.voice_metric import voice_metrics
from pipeline.storage import Folder

logger = logging.getLogger(__name__)

CACHE = "cache"
"""Directory below the output with generated audio and observations."""
PAGE, MARKDOWN = "report.html", "report.md"
"""The report, as a page and as Markdown tables."""


@dataclass(frozen=True)
class Evaluation:
    """An evaluation in memory.

    Attributes:
        results: Figures as plain values, the contents of `results.json`.
        clip_values: Values of single clips, the contents of `clips.json`.
        clips: The evaluated clips of each modality, worst first.
        badness: How bad the generated audio of each clip is: 0 is best, 1 is worst.
        heard: What the recogniser of words heard, by clip id and form.
        sample_rate: Rate of all waveforms, Hz.
        listen: Function that returns a clip in all forms.
    """

    results: dict[str, Any]
    clip_values: dict[str, Any]
    clips: dict[str, list[HeldOutClip]]
    badness: dict[str, float]
    heard: dict[str, dict[str, str]]
    sample_rate: int
    listen: Callable[[HeldOutClip], Listening]


def evaluate(
    bundle: str | Path,
    data: Folder,
    output: Folder,
    settings: EvaluateSettings,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    recogniser: Recogniser | None = None,
) -> Evaluation:
    """Measure a bundle on held-out clips of a prepared directory.

    Generated audio and observations are cached below the output, by content. Running again after
    an interruption continues, and gives the same figures; other settings or another bundle
    evaluate anew. Results and report of an earlier run are removed first, so that the directory
    never shows them beside files of this one.

    Args:
        bundle: Folder of the bundle, or the name of a shipped one.
        data: Output of `prepare` with `clips/` and `descriptions/`.
        output: Directory of the cache; `write_evaluation` writes the results into it.
        settings: Measures and number of clips.
        on_progress: Called with the number of tasks done and of all tasks.
        recogniser: Recogniser to use in place of the one in the folder `settings.asr`.

    Raises:
        IncompleteError: If the data or the evaluation to compare with is not complete, or no clip
            qualifies.
        RecogniserError: If the folder `settings.asr` holds no recogniser.
        UnitsFailedError: If clips could not be evaluated; the others are kept.
        ValueError: If voices are requested of a bundle that has none.
    """
    # Whatever can be wrong is found before hours of generation.
    other = None if settings.against is None else read_other(Folder.at(settings.against))
    if recogniser is None and settings.asr is not None:
        recogniser = WhisperRecogniser(Path(settings.asr), settings.asr_threads)
    loaded = load_bundle(bundle)
    choice = _choose(data, settings)
    pool = described_clips(data.child("clips"), data.child("descriptions"), settings.max_duration_s)
    references = choose_references(choice.clips, pool, settings.seed)
    metrics, skipped = build_metrics(settings, pool, references, recogniser)
    voices = _voices(loaded, data, references, settings)
    tasks = _tasks(choice.clips, references, voices, settings, metrics)
    recordings = _recording_tasks(choice.clips, metrics)
    for name in (RESULTS, CLIPS, PAGE, MARKDOWN):
        output.delete(name)
    cache = ClipCache(output.child(CACHE), metrics)
    all_tasks = [*itertools.chain.from_iterable(tasks.values()), *recordings.values()]
    _observe(all_tasks, loaded, str(bundle), cache, metrics, settings, on_progress)

    evidence = _evidence(tasks, recordings, loaded, cache)
    findings = Findings(skipped=skipped)
    for metric in metrics:
        findings.extend(metric.summarise(evidence))
    clusters = {clip.clip_id: cluster_of(clip) for clip in [*choice.clips, *pool]}
    results = {
        **_identity(loaded, str(bundle), recogniser, settings),
        "clips": choice.counts,
        **_figures(evidence, findings, settings, clusters),
    }
    if other is not None:
        rows = compare(findings, other[1], settings.seed, clusters)
        results["comparison"] = {"bundle_digest": other[0]["bundle_digest"], "rows": rows}
    values = {"bundle_digest": loaded.digest, "measures": clip_values(findings)}
    bad = badness(findings)
    return Evaluation(
        results,
        values,
        _worst_first(choice.clips, bad),
        bad,
        heard_words(evidence),
        loaded.codec.timebase.sample_rate,
        lambda clip: listen(tasks[clip.clip_id][0], loaded, cache),
    )


def _identity(
    loaded: Bundle, name: str, recogniser: Recogniser | None, settings: EvaluateSettings
) -> dict[str, Any]:
    """What was measured, and with which settings."""
    return {
        "bundle": loaded.card.get("name", name),
        "bundle_digest": loaded.digest,
        "recogniser": None if recogniser is None else f"{recogniser.name} {recogniser.version}",
        "weights": {part: loaded.card.get(part) for part in ("run", "step")},
        "settings": settings.model_dump(mode="json", exclude={"resources", "tracking"}),
    }


def _figures(
    evidence: Evidence,
    findings: Findings,
    settings: EvaluateSettings,
    clusters: Mapping[str, str],
) -> dict[str, Any]:
    """What was found, and what could not be measured."""
    return {
        "failed": {o.clip.clip_id: o.failure for o in evidence.clips if o.failure is not None},
        "measures": [measure.figures(settings.seed, clusters) for measure in findings.measures],
        "curves": findings.curves,
        "not_measured": findings.skipped,
        "timing": _timing(evidence, settings),
    }


def build_metrics(
    settings: EvaluateSettings,
    pool: Sequence[HeldOutClip],
    references: Mapping[str, HeldOutClip],
    recogniser: Recogniser | None,
) -> tuple[list[Metric], dict[str, str]]:
    """The metrics of an evaluation, and the reason for each that is left out.

    Args:
        settings: Settings of the evaluation.
        pool: Every described clip of the data.
        references: Another recording of the speaker, by clip id.
        recogniser: Recogniser for error rates; None leaves them out.
    """
    skipped: dict[str, str] = {}
    metrics: list[Metric] = []
    if intelligibility.is_available():
        metrics.append(SphinxMetric())
    else:
        skipped[DIGITS] = NO_SPHINX
    words = None
    if recogniser is None:
        skipped[WORDS] = NO_ASR
    else:
        words = WordsMetric(recogniser, american_spelling=settings.american_spelling)
        metrics.append(words)
    metrics.append(StopMetric(words))
    metrics += voice_metrics(
        references,
        were_requested=settings.request_voices or settings.continue_recordings,
        encoder_folder=settings.speaker_encoder,
    )
    if settings.classifier_clips:
        metrics.append(ClassMetric(pool, settings.classifier_clips, settings.seed))
    else:
        skipped |= dict.fromkeys((SOUND_CLASSES, FAMILIES), "classifier_clips is 0")
    metrics += [MusicMetric(), EmbeddingMetric(MelStatistics())]
    if settings.clap is not None:
        metrics.append(EmbeddingMetric(ClapEmbedding(settings.clap)))
    if settings.dnsmos is not None:
        metrics.append(QualityMetric(settings.dnsmos))
    metrics += [EmbeddingMetric(OnnxEmbedding(network)) for network in settings.embeddings]
    metrics += [OpinionMetric(network) for network in settings.opinions]
    metrics.append(SignalMetric())
    return metrics, skipped


def _choose(data: Folder, settings: EvaluateSettings) -> Choice:
    return choose(
        data.child("clips"),
        data.child("descriptions"),
        per_modality=settings.per_modality,
        num_digits=settings.num_digits,
        max_duration_s=settings.max_duration_s,
        seed=settings.seed,
        fill_from_training=settings.fill_from_training,
        per_corpus=settings.per_corpus,
    )


def _voices(
    bundle: Bundle,
    data: Folder,
    references: Mapping[str, HeldOutClip],
    settings: EvaluateSettings,
) -> dict[str, tuple[float, ...]]:
    """Embedding of each clip's reference, from the training data; empty if none is requested."""
    if not settings.request_voices:
        return {}
    if bundle.model.config.speaker_id is None:
        raise ValueError("request_voices is true, but the bundle has no voices: set it to false")
    embeddings = speaker_embeddings(data.child("latents"), {c.clip_id for c in references.values()})
    return {
        clip_id: tuple(embeddings[clip.clip_id])
        for clip_id, clip in references.items()
        if clip.clip_id in embeddings
    }


def _tasks(
    clips: Sequence[HeldOutClip],
    references: Mapping[str, HeldOutClip],
    voices: Mapping[str, tuple[float, ...]],
    settings: EvaluateSettings,
    metrics: Sequence[Metric],
) -> dict[str, list[ClipTask]]:
    """The tasks of each clip: all forms first, then generations with further seeds."""
    for_takes = tuple(metric.name for metric in metrics if metric.compares_takes)
    found: dict[str, list[ClipTask]] = defaultdict(list)
    for clip in clips:
        reference = references.get(clip.clip_id)
        for take in range(settings.num_seeds):
            sampling = Sampling(
                settings.num_flow_steps, settings.guidance_scale, settings.seed + take
            )
            found[clip.clip_id].append(
                ClipTask(
                    clip,
                    forms=FORMS if take == 0 else ("generated",),
                    metrics=None if take == 0 else for_takes,
                    sampling=sampling,
                    reference=reference,
                    voice=voices.get(clip.clip_id),
                    is_continued=settings.continue_recordings
                    and reference is not None
                    and bool(reference.transcript),
                )
            )
    return found


def _recording_tasks(
    clips: Sequence[HeldOutClip], metrics: Sequence[Metric]
) -> dict[str, ClipTask]:
    """Tasks that only observe a recording: those of clips whose audio is not evaluated."""
    return {
        clip.clip_id: ClipTask(clip, forms=("real",), metrics=(metric.name,))
        for metric in metrics
        for clip in metric.recordings(clips)
    }


def _observe(
    tasks: Sequence[ClipTask],
    bundle: Bundle,
    place: str,
    cache: ClipCache,
    metrics: Sequence[Metric],
    settings: EvaluateSettings,
    on_progress: Callable[[int, int], None],
) -> None:
    """Do the tasks that the cache does not hold yet."""
    pending = [t for t in tasks if not cache.is_complete(t, cache.record(t.key(bundle.digest)))]
    logger.info("evaluate: %d of %d clips are in the cache", len(tasks) - len(pending), len(tasks))
    resources = settings.resources
    run_tasks(
        pending,
        {
            "bundle": place if resources.workers else bundle,
            "cache": cache.folder,
            "metrics": metrics,
            "device": "cuda" if resources.gpus else "cpu",
        },
        resources,
        on_progress,
    )


def _evidence(
    tasks: Mapping[str, Sequence[ClipTask]],
    recordings: Mapping[str, ClipTask],
    bundle: Bundle,
    cache: ClipCache,
) -> Evidence:
    def observed(task: ClipTask) -> Any:
        """The cached observations of a task."""
        return cache.observed(task, cache.record(task.key(bundle.digest)))

    return Evidence(
        clips=[observed(takes[0]) for takes in tasks.values()],
        takes={name: [observed(t) for t in takes[1:]] for name, takes in tasks.items()
               if len(takes) > 1},
        recordings={name: observed(task) for name, task in recordings.items()},
    )  # fmt: skip


def _timing(evidence: Evidence, settings: EvaluateSettings) -> dict[str, Any]:
    """Speed of the generation; the only figures that differ from run to run."""
    found: dict[str, Any] = {"workers": settings.resources.workers}
    by_modality = defaultdict(list)
    for item in evidence.clips:
        if item.failure is None:
            by_modality[item.clip.modality].append(item)
    for modality, items in by_modality.items():
        seconds = [o.of(SignalMetric.name, "generated")["duration_s"] for o in items]
        factor = intervals.ratio([o.generate_s for o in items], seconds, settings.seed)
        found[modality] = {"real_time_factor": factor}
    return found


def _worst_first(
    clips: Sequence[HeldOutClip], bad: Mapping[str, float]
) -> dict[str, list[HeldOutClip]]:
    groups: dict[str, list[HeldOutClip]] = defaultdict(list)
    for clip in clips:
        groups[clip.modality].append(clip)
    return {
        modality: sorted(group, key=lambda clip: (-bad.get(clip.clip_id, 0.0), clip.clip_id))
        for modality, group in groups.items()
    }
