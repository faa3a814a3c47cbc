"""An evaluation on disk: `results.json`, sample WAVs with spectrograms, and `report.html`."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import soundfile
import torch
from torch import Tensor

from pipeline.evaluation import signal
from pipeline.evaluation.evaluate import Evaluation
from pipeline.evaluation.held_out import COUNTS, TRAINING, describe_counts, num_chosen
from pipeline.evaluation.intervals import LEVEL
from pipeline.evaluation.listening import FORMS, Listening
from pipeline.evaluation.report import Report, Sample, Table, write_report
from pipeline.figures import save_spectrogram
from pipeline.page import number
from pipeline.storage import Folder

LEAD = (
    "{clips} in three forms: the real recording at the codec's rate, what the codec makes "
    "of it (the ceiling of the model), and what the model makes from the description alone."
)
MEL_FD_NOTE = (
    "mel-FD is a Fréchet distance over log-mel statistics. It orders models of this project on the "
    "same clips; it is not comparable with published FAD values. Lower is better; the codec's own "
    "value is the floor the model can reach. It has no interval: resampled clips bias it upwards."
)
INTERVAL_NOTE = f"In brackets: bootstrap interval over clips at {LEVEL:.0%}."
_BEYOND_FORMS = {"classifier_on_held_out": "classifier on real held-out clips", "chance": "chance"}


def write_evaluation(evaluation: Evaluation, output: Path, samples_per_modality: int = 2) -> None:
    """Write everything below `output`; `results.json` comes last.

    Args:
        evaluation: Results and waveforms.
        output: Directory, created if needed.
        samples_per_modality: Number of clips of each modality to keep as audio.
    """
    samples = []
    for item in _first_of_each(evaluation.listenings, samples_per_modality):
        samples += _write_forms(item, evaluation.sample_rate, output / "samples")
    tables = result_tables(evaluation.results)
    lead = LEAD.format(clips=measured_on(evaluation.results))
    write_report(Report("AudioCALM: evaluation", lead, samples, (), tables), output / "report.html")
    Folder.at(output).write_json("results.json", evaluation.results)


def write_wav(path: Path, waveform: Tensor, sample_rate: int) -> None:
    """A waveform, `channels samples`, as a 16-bit WAV that appears complete or not at all."""
    sink = io.BytesIO()
    pcm = waveform.clamp(-1, 1).T.numpy()
    soundfile.write(sink, pcm, sample_rate, format="WAV", subtype="PCM_16")
    Folder.at(path.parent).write_bytes(path.name, sink.getvalue())


def sample_card(title: str, text: str, wav: Path) -> Sample:
    """A card for the report over a WAV file; its spectrogram is written beside it."""
    frames, sample_rate = soundfile.read(wav, dtype="float32", always_2d=True)
    picture = wav.with_suffix(".png")
    save_spectrogram(picture, frames.T, sample_rate)
    facts = signal.examine(torch.from_numpy(frames.T.copy()), sample_rate)
    shown = {"duration": f"{facts.duration_s:.2f} s", "level": f"{facts.level_dbfs:.1f} dBFS"}
    return Sample(title, text, wav, picture, shown)


def measured_on(results: dict[str, Any]) -> str:
    """Whether the clips of `results.json` are held out, or how many of them are not."""
    counts = results["clips"].values()
    in_training = sum(count[TRAINING] for count in counts)
    if not in_training:
        return "Held-out clips"
    total = sum(num_chosen(count) for count in counts)
    return f"{total} clips, {in_training} of them from the training split and not held out,"


def clip_origin(split: str) -> str:
    """Caption of a sample by the split of its clip."""
    return "training clip" if split == TRAINING else "held-out clip"


def result_tables(results: dict[str, Any]) -> list[Table]:
    """The tables of a report from `results.json`."""
    counts, limit_s = results["clips"], results["settings"]["max_duration_s"]
    tables = [
        Table(
            "Clips measured, and clips left out",
            ("modality", *(name.replace("_", " ") for name in COUNTS)),
            [(name, *(count[column] for column in COUNTS)) for name, count in counts.items()],
            ". ".join(describe_counts(name, count, limit_s) for name, count in counts.items()),
        ),
        _by_modality("Codec: reconstruction against the recording", results["codec"]),
        _by_modality("Model: generation from the description", results["generation"], MEL_FD_NOTE),
    ]
    tables += _measure_tables(results.get("measures", []))
    if reasons := results.get("not_measured"):
        tables.append(Table("Not measured", ("measure", "why"), list(reasons.items())))
    return tables


def markdown_tables(results: dict[str, Any]) -> str:
    """The tables of `results.json` as Markdown, for a model card."""
    lines = [f"{measured_on(results).rstrip(',')}, seed {results['settings']['seed']}.", ""]
    for table in result_tables(results):
        lines += [f"### {table.title}", "", _markdown_row(table.columns)]
        lines += ["|" + "---|" * len(table.columns)]
        lines += [_markdown_row(row) for row in table.rows]
        lines += ["", *([table.note, ""] if table.note else [])]
    return "\n".join(lines).rstrip()


def _markdown_row(cells: Sequence[object]) -> str:
    texts = (
        "-" if cell is None else number(cell) if isinstance(cell, float) else str(cell)
        for cell in cells
    )
    return f"| {' | '.join(text.replace('|', '/') for text in texts)} |"


def shown(value: object) -> object:
    """Text of a table cell: an estimate with its interval, other values unchanged."""
    if not isinstance(value, dict):
        return value
    if value["value"] is None:
        return None
    figure = number(value["value"])
    if value["low"] is None:
        return figure
    return f"{figure} [{number(value['low'])}, {number(value['high'])}]"


def _measure_tables(measures: list[dict[str, Any]]) -> list[Table]:
    """One table for each modality: every measure on the three forms of the same clips."""
    tables = []
    for modality in dict.fromkeys(measure["modality"] for measure in measures):
        group = [measure for measure in measures if measure["modality"] == modality]
        extra = [name for name in _BEYOND_FORMS if any(name in measure for measure in group)]
        columns = ("measure", "clips", *FORMS, *(_BEYOND_FORMS[name] for name in extra), "better")
        rows = [
            (
                measure["name"],
                measure["generated"]["n"],
                *(shown(measure[form]) for form in FORMS),
                *(_beyond(measure.get(name)) for name in extra),
                measure["better"],
            )
            for measure in group
        ]
        notes = ". ".join(f"{m['name']}: {m['note']}" for m in group if m["note"])
        tables.append(Table(f"Measures of {modality}", columns, rows, f"{INTERVAL_NOTE} {notes}"))
    return tables


def _beyond(value: object) -> object:
    """Text of a value, with the number of its clips if it has its own."""
    if not isinstance(value, dict) or value["value"] is None:
        return value if isinstance(value, float) else None
    return f"{shown(value)} ({value['n']} clips)"


def _by_modality(title: str, measures: dict[str, dict[str, Any]], note: str = "") -> Table:
    names = list(next(iter(measures.values())))
    rows = [
        (modality, *(shown(values[name]) for name in names))
        for modality, values in measures.items()
    ]
    return Table(title, ("modality", *names), rows, f"{INTERVAL_NOTE} {note}".strip())


def _first_of_each(listenings: list[Listening], count: int) -> list[Listening]:
    kept: dict[str, list[Listening]] = defaultdict(list)
    for item in listenings:
        if len(kept[item.clip.modality]) < count:
            kept[item.clip.modality].append(item)
    return [item for group in kept.values() for item in group]


def _write_forms(item: Listening, sample_rate: int, folder: Path) -> list[Sample]:
    stem = "".join(c if c.isalnum() else "-" for c in item.clip.clip_id)[-60:].strip("-")
    text = item.clip.description
    if item.clip.transcript:
        text += f" “{item.clip.transcript}”"
    samples = []
    for form in FORMS:
        waveform: Tensor | None = getattr(item, form)
        if waveform is None or waveform.numel() == 0:
            continue
        title = f"{item.clip.modality}, {form} ({clip_origin(item.clip.split)})"
        wav = folder / f"{item.clip.modality}-{item.clip.split}-{stem}-{form}.wav"
        write_wav(wav, waveform, sample_rate)
        samples.append(sample_card(title, text, wav))
    return samples
