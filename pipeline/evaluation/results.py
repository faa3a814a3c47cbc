"""An evaluation on disk: results, values of clips, samples with spectrograms, and the report."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import soundfile
import torch
from torch import Tensor

from pipeline.audio.wav import write_wav
from pipeline.evaluation import signal
from pipeline.evaluation.comparison import CLIPS, RESULTS
from pipeline.evaluation.evaluate import MARKDOWN, PAGE, Evaluation
from pipeline.evaluation.findings import FORMS
from pipeline.evaluation.held_out import TRAINING, HeldOutClip
from pipeline.evaluation.intervals import MIN_CLIPS, is_supported
from pipeline.evaluation.listening import Listening
from pipeline.evaluation.report import Figure, Report, Sample, write_report
from pipeline.evaluation.tables import (
    further_tables,
    markdown_tables,
    measured_on,
    overview_tables,
    worst_clips,
)
from pipeline.figures import Interval, loudest_db, save_curves, save_intervals, save_spectrogram
from pipeline.settings import digest_of
from pipeline.storage import Folder
from pipeline.tracking import TrackingSettings, closing_run, open_run

LEAD = (
    "{clips} in three forms: the real recording at the codec's rate, what the codec makes "
    "of it (the ceiling of the model), and what the model makes from the description alone. The "
    "samples are those with the worst generated audio of each modality, worst first: they show "
    "what goes wrong, not what is usual."
)
_ENDS = ("value", "low", "high")
_IN_TABLES_ONLY = ("character error rate", "drift")
_GLANCE_NOTE = (
    "Figures from 0 to 1, and in brackets whether higher or lower is better; the lines are the "
    "intervals of the tables."
)
_CURVE_NOTE = (
    "Mean RMS level over all clips that last so long, at least {least} of them. Where recordings "
    "fall as well, they end there."
)


def write_evaluation(evaluation: Evaluation, output: Path, samples_per_modality: int = 2) -> None:
    """Write everything below `output`; `results.json` comes last.

    Samples of an earlier evaluation are removed.

    Args:
        evaluation: Results and clips.
        output: Directory, created if needed.
        samples_per_modality: Number of clips of each modality to keep as audio, worst first.
    """
    samples = []
    for clips in evaluation.clips.values():
        for number, clip in enumerate(clips[:samples_per_modality], 1):
            heard = evaluation.heard.get(clip.clip_id, {})
            group = f"{clip.modality}, worst {number} of {len(clips)}: {_asked(clip)}"
            samples += _write_forms(evaluation.listen(clip), output / "samples", group, heard)
    written = {sample.audio.stem for sample in samples}
    for path in (output / "samples").glob("*-*-*-*.*"):
        if path.suffix in (".wav", ".png") and path.stem not in written:
            path.unlink()
    results = evaluation.results
    report = Report(
        "AudioCALM: evaluation",
        LEAD.format(clips=measured_on(results)),
        samples,
        _curves(results.get("curves", {}), output / "figures"),
        [*worst_clips(evaluation), *further_tables(results)],
        overview_tables(results),
        _glance(results["measures"], output / "figures"),
    )
    write_report(report, output / PAGE)
    folder = Folder.at(output)
    folder.write_bytes(MARKDOWN, f"{markdown_tables(results)}\n".encode())
    folder.write_json(CLIPS, evaluation.clip_values)
    folder.write_json(RESULTS, results)


def log_evaluation(results: dict[str, Any], output: Path, tracking: TrackingSettings) -> None:
    """Log a written evaluation to MLflow: figures of enough clips, page, curves and samples.

    Args:
        results: Contents of `results.json`.
        output: Directory of `write_evaluation`.
        tracking: Settings of the tracking server.
    """
    identity = digest_of([results["bundle_digest"], results["settings"], str(output.resolve())])
    params = results["settings"] | {"bundle": results["bundle"]}
    reference = open_run(tracking, output, identity, params, {"job": "evaluate"})
    with closing_run(reference) as tracker:
        tracker.log_metrics(logged_figures(results["measures"]), 0)
        for name in (PAGE, MARKDOWN, RESULTS, CLIPS):
            tracker.log_file(output / name)
        for folder in ("samples", "figures"):
            for path in sorted((output / folder).glob("*")):
                tracker.log_file(path, folder)


def logged_figures(measures: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Figures of enough clips by a name that MLflow takes: `modality/measure/form`."""
    return {
        re.sub(r"[^\w\-./ ]", "", f"{measure['modality']}/{measure['name']}/{form}"): value
        for measure in measures
        for form in FORMS
        if form in measure and is_supported(measure[form])
        for value in (measure[form]["value"],)
    }


def sample_card(
    title: str, text: str, wav: Path, group: str = "", loudest_db: float | None = None
) -> Sample:
    """A card for the report over a WAV file; its spectrogram is written beside it.

    Args:
        title: Heading.
        text: What it was made from, or a caption.
        wav: Audio.
        group: Heading over several cards.
        loudest_db: Top of the colour scale, as in `save_spectrogram`.
    """
    frames, sample_rate = soundfile.read(wav, dtype="float32", always_2d=True)
    picture = wav.with_suffix(".png")
    save_spectrogram(picture, frames.T, sample_rate, loudest_db=loudest_db)
    facts = signal.examine(torch.from_numpy(frames.T.copy()), sample_rate)
    shown = {"duration": f"{facts.duration_s:.2f} s", "level": f"{facts.level_dbfs:.1f} dBFS"}
    return Sample(title, text, wav, picture, shown, group)


def clip_origin(split: str) -> str:
    """Caption of a sample by the split of its clip."""
    return "training clip" if split == TRAINING else "held-out clip"


def _asked(clip: HeldOutClip) -> str:
    """The description of a clip, and its words."""
    words = f" “{clip.transcript}”" if clip.transcript else ""
    return f"{clip.description}{words} ({clip_origin(clip.split)} {clip.clip_id})"


def _glance(measures: Sequence[dict[str, Any]], folder: Path) -> Figure | None:
    """A picture of measures from 0 to 1 that recordings have too, large enough to be seen."""
    rows = {}
    for measure in measures:
        shown = [form for form in FORMS if form in measure and is_supported(measure[form])]
        row = {form: Interval(*(measure[form][end] for end in _ENDS)) for form in shown}
        values = [interval.value for interval in row.values()]
        is_apart = measure["better"] and not measure["name"].startswith(_IN_TABLES_ONLY)
        if is_apart and len(row) == len(FORMS) and min(values) >= 0 and 0.05 <= max(values) <= 1:
            rows[f"{measure['modality']}: {measure['name']} ({measure['better']})"] = row
    if not rows:
        return None
    image = folder / "glance.png"
    save_intervals(image, rows, (-0.03, 1.03))
    return Figure("At a glance", image, _GLANCE_NOTE)


def _curves(curves: dict[str, Any], folder: Path) -> list[Figure]:
    """A picture of each set of curves."""
    figures = []
    for title, forms in curves.items():
        image = folder / f"{title.lower().replace(' ', '-')}.png"
        lines = {form: [(time, value) for time, value, _ in points]
                 for form, points in forms.items()}  # fmt: skip
        save_curves(image, lines, x_label="time, s", y_label="level, dBFS")
        figures.append(Figure(title, image, _CURVE_NOTE.format(least=MIN_CLIPS)))
    return figures


def _write_forms(
    item: Listening, folder: Path, group: str, heard: Mapping[str, str]
) -> list[Sample]:
    """Cards of the forms of a clip, whose spectrograms share one colour scale."""
    stem = "".join(c if c.isalnum() else "-" for c in item.clip.clip_id)[-60:].strip("-")
    found: dict[str, Tensor | None] = {form: getattr(item, form) for form in FORMS}
    forms = {name: audio for name, audio in found.items() if audio is not None and audio.numel()}
    top = max(loudest_db(audio.numpy()) for audio in forms.values())
    samples = []
    for form, waveform in forms.items():
        wav = folder / f"{item.clip.modality}-{item.clip.split}-{stem}-{form}.wav"
        write_wav(wav, waveform.numpy(), item.sample_rate)
        card = sample_card(form, "", wav, group, top)
        samples.append(replace(card, facts={"heard": heard[form] or "nothing", **card.facts})
                       if form in heard else card)  # fmt: skip
    return samples
