"""Summary of a whole run: counts, hours, losses and artefacts of one folder, and its report.

Reads only what the stages left on disk, so it can be made again at any time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import soundfile
import torch

from model.config import MODALITIES
from pipeline.evaluation.held_out import SPLITS
from pipeline.evaluation.intelligibility import Recogniser, is_available
from pipeline.evaluation.report import Figure, Report, Sample, Table, write_report
from pipeline.evaluation.results import clip_origin, sample_card
from pipeline.evaluation.tables import result_tables
from pipeline.figures import save_curves
from pipeline.storage import Folder

STAGES = ("clips", "latents", "descriptions", "train-shards")
LEAD = (
    "The first samples are of the bundle that comes with the package; the model was then trained "
    "for some minutes more, on minutes of audio that this command made, and measured before and "
    "after. These minutes show that every part works: do not expect them to "
    "improve a model that has been trained for hours."
)
LEAD_FROM_SCRATCH = (
    "Everything on this page was made by one command on the machine it ran on: the corpus, the "
    "codec, the model and the samples. Codec and model were trained from nothing within minutes, "
    "on minutes of audio. Expect texture and rhythm of the right kind, not words or melodies: "
    "this run shows that every part works and that the losses fall."
)
_CODEC_TERMS = ("total", "head_magnitude", "head_mel", "mel", "log_magnitude")
"""Loss terms in the figure: those with a weight in the recipe."""


def write_summary(
    run: Path,
    seconds: Mapping[str, float],
    samples: Mapping[str, tuple[Path, str]],
    spoken: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Write `summary.json`, the curves and `report.html` of a run's folder.

    Args:
        run: Folder with `data/`, `training/`, `bundle/` and `evaluation/`; with `codec-training/`
            where the codec was trained, with `evaluation-before/` where the weights it started
            from were measured.
        seconds: Wall seconds by step.
        samples: Generated WAV files by name, each with the words it was made from.
        spoken: The digit that a sample says, by its name.

    Returns:
        The summary, as in the file.

    Raises:
        IncompleteError: If a stage is not complete.
        OSError: If a training or the evaluation left no results.
    """
    summary = {
        "stages": {stage: _stage(run / "data" / stage) for stage in STAGES},
        "hours": Folder.at(run / "data" / "clips").card()["hours"],
        "codec": _codec_losses(run),
        "model": _model_losses(run),
        "seconds": dict(seconds),
        "heard": _heard(samples, spoken or {}),
        "evaluation": _results(run / "evaluation"),
        "evaluation_before": _results(run / "evaluation-before", is_optional=True),
    }
    has_codec = summary["codec"] is not None
    figures = [*([_codec_curve(run)] if has_codec else []), _model_curve(run)]
    cards = [sample_card(f"generated: {name}", text, wav) for name, (wav, text) in samples.items()]
    cards += _reconstructions(run)
    lead = LEAD_FROM_SCRATCH if has_codec else LEAD
    write_report(
        Report("AudioCALM: demo", lead, cards, figures, _tables(summary)), run / "report.html"
    )
    summary["artefacts"] = _artefacts(run)
    Folder.at(run).write_json("summary.json", summary)
    return summary


def _stage(path: Path) -> dict[str, Any]:
    card = Folder.at(path).card()
    kept = ("read", "written", "rejected", "rejected_by_reason")
    return {name: card[name] for name in kept}


def _results(folder: Path, *, is_optional: bool = False) -> dict[str, Any] | None:
    path = folder / "results.json"
    if is_optional and not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def _heard(
    samples: Mapping[str, tuple[Path, str]], spoken: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """The spoken digit and the recognised one, by sample; empty without a recogniser."""
    if not spoken or not is_available():
        return {}
    recogniser = Recogniser(single_digit=True)
    found = {}
    for name, word in spoken.items():
        frames, rate = soundfile.read(samples[name][0], dtype="float32", always_2d=True)
        heard = recogniser.transcribe(torch.from_numpy(frames.T.copy()), rate)
        found[name] = {"said": word, "heard": heard}
    return found


def _codec_losses(run: Path) -> dict[str, Any] | None:
    if not (run / "codec-training" / "metrics.json").exists():
        return None
    metrics = json.loads((run / "codec-training" / "metrics.json").read_text("utf-8"))
    return {
        "steps": metrics["curve"][-1]["step"],
        "loss_first": metrics["loss_first"],
        "loss_last": metrics["loss_last"],
        "validation": metrics["validation"],
    }


def _model_losses(run: Path) -> dict[str, Any]:
    entries = _model_entries(run)
    flows = [name for name in entries[0] if name.startswith("loss/")]
    return {
        "steps": entries[-1]["step"],
        "first": {name: entries[0][name] for name in flows},
        "last": {name: entries[-1].get(name) for name in flows},
    }


def _model_entries(run: Path) -> list[dict[str, Any]]:
    lines = (run / "training" / "metrics.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _codec_curve(run: Path) -> Figure:
    curve = json.loads((run / "codec-training" / "metrics.json").read_text("utf-8"))["curve"]
    image = run / "figures" / "codec-loss.png"
    lines = {
        name: [(point["step"], point[name]) for point in curve]
        for name in _CODEC_TERMS
        if name in curve[0]
    }
    save_curves(image, lines, "codec training", is_log=True)
    return Figure("Codec training", image)


def _model_curve(run: Path) -> Figure:
    entries = _model_entries(run)
    names = sorted(n for n in entries[-1] if n.startswith("loss/") and "time_" not in n)
    lines = {
        name.removeprefix("loss/"): [(e["step"], e[name]) for e in entries if name in e]
        for name in names
    }
    image = run / "figures" / "model-loss.png"
    save_curves(image, lines, "model training", is_log=True)
    return Figure("Model training", image)


def _reconstructions(run: Path) -> list[Sample]:
    folder = run / "evaluation" / "samples"
    cards = []
    for modality in MODALITIES:
        found = [
            (split, wav)
            for split in SPLITS
            for wav in sorted(folder.glob(f"{modality}-{split}-*-reconstructed.wav"))
        ]
        for split, wav in found[:1]:
            for form in ("real", "reconstructed"):
                audio = wav.with_name(wav.name.replace("-reconstructed.wav", f"-{form}.wav"))
                title = f"codec, {modality}: {form}"
                cards.append(Sample(title, clip_origin(split), audio, audio.with_suffix(".png")))
    return cards


def _tables(summary: dict[str, Any]) -> list[Table]:
    stages = [
        (name, values["read"], values["written"], values["rejected"])
        for name, values in summary["stages"].items()
    ]
    hours = summary["hours"]
    spread = [
        (kind.removeprefix("by_"), name, value * 60)
        for kind, values in hours.items()
        for name, value in values.items()
    ]
    codec, before = summary["codec"], summary["evaluation_before"]
    losses = [
        *([] if codec is None else
          [("codec", codec["steps"], codec["loss_first"], codec["loss_last"])]),
        *(
            (f"model, {name.removeprefix('loss/')}", summary["model"]["steps"], first,
             summary["model"]["last"][name])
            for name, first in summary["model"]["first"].items()
            if "time_" not in name
        ),
    ]  # fmt: skip
    return [
        Table("Stages", ("directory", "read", "written", "rejected"), stages,
              "read = written + rejected, in every stage."),
        Table("Minutes of audio", ("by", "", "minutes"), spread),
        Table("Losses", ("of", "steps", "first", "last"), losses),
        *_words_heard(summary["heard"]),
        *([] if before is None else
          [replace(table, title=f"Before training: {table.title}")
           for table in result_tables(before)]),
        *result_tables(summary["evaluation"]),
        Table("Seconds by step", ("step", "seconds"), list(summary["seconds"].items())),
    ]  # fmt: skip


def _words_heard(heard: dict[str, dict[str, str]]) -> list[Table]:
    rows = [(name, word["said"], word["heard"] or "nothing") for name, word in heard.items()]
    note = "A small recogniser (pocketsphinx) chooses among the ten digits."
    return [Table("Words recognised", ("sample", "said", "heard"), rows, note)] if rows else []


def _artefacts(run: Path) -> list[str]:
    """Files to open; shards and checkpoints are named by their directory."""
    patterns = (
        "*.html",
        "first/*",
        "samples/*",
        "figures/*",
        "evaluation/*.*",
        "bundle/*",
        "data/*",
    )
    found = {str(path.relative_to(run)) for pattern in patterns for path in run.glob(pattern)}
    return sorted(found | {"summary.json"})
