"""What the demo runs: ordinary commands over one folder, and what to try after it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIGS = Path(__file__).parent / "configs"

PROMPTS: dict[str, tuple[str, ...]] = {
    "speech": (
        "--modality=speech",
        "--description=A woman says a single English word, clearly and without hurry.",
        "--transcript=seven",
        "--language=en",
    ),
    "sound": (
        "--modality=sound",
        "--description=Steady rain falls close by.",
        "--seconds=4",
    ),
    "music": (
        "--modality=music",
        "--description=A slow, calm ambient piece with soft pads.",
        "--seconds=6",
    ),
}
"""One clip of each modality, in words that the starter corpus has taught."""

_SHOWN = ("--description", "--transcript")
_MEASURED = ("per_modality=4", "num_digits=8", "fill_from_training=true")
"""Minutes of audio hold out one or two clips of music: training clips make up the number, and the
summary says how many."""


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: Under which its seconds are reported.
        words: The command line after `audiocalm`.
        sample: WAV file that it generates, and the words it is made from.
    """

    name: str
    words: list[str]
    sample: tuple[Path, str] | None = None


def plan(
    out: Path,
    minutes: float,
    seed: int,
    codec_steps: int | None = None,
    train_steps: int | None = None,
) -> list[Step]:
    """Commands of the demo, in order.

    Args:
        out: Absolute folder of the demo.
        minutes: Minutes of starter corpus.
        seed: Of corpus and samples.
        codec_steps: Optimiser steps of the codec; None leaves it to the recipe.
        train_steps: Optimiser steps of the model, likewise.
    """
    corpus, data, training = str(out / "corpus"), str(out / "data"), str(out / "training")
    clips, shards = str(out / "data" / "clips"), str(out / "data" / "train-shards")
    codec_run, bundle = out / "codec-training", str(out / "bundle")
    codec = str(codec_run / "codec")
    for_codec, for_train = _config("codec", codec_steps), _config("train", train_steps)
    from_shards = ["--shards", shards, "--codec", codec, "--set", "sample.every=80"]
    lines = [
        ["starter-corpus", "--out", corpus, "--minutes", f"{minutes:g}", "--seed", str(seed)],
        ["ingest", "--input", corpus, "--output", clips],
        ["train-codec", "--clips", clips, "--output", str(codec_run), *for_codec],
        ["prepare", "--input", corpus, "--codec", codec, "--output", data, *_config("prepare")],
        ["train", *from_shards, "--output", training, *for_train],
        ["export", "--run", training, "--codec", codec, "--output", bundle],
    ]
    steps = [Step(line[0], line) for line in lines]
    for modality, prompt in PROMPTS.items():
        wav = out / "samples" / f"{modality}.wav"
        line = ["generate", f"--bundle={bundle}", *prompt, f"--seed={seed}", f"--out={wav}"]
        asked = [word.partition("=") for word in prompt]
        text = " ".join(said for option, _, said in asked if option in _SHOWN)
        steps.append(Step(f"generate {modality}", line, (wav, text)))
    measure = ["evaluate", "--bundle", bundle, "--data", data, "--output", str(out / "evaluation")]
    for setting in _MEASURED:
        measure += ["--set", setting]
    return [*steps, Step("evaluate", measure)]


def _config(kind: str, num_steps: int | None = None) -> list[str]:
    recipe = ["--config", str(CONFIGS / f"{kind}_tiny_cpu.yaml")]
    return recipe if num_steps is None else [*recipe, "--set", f"optim.num_steps={num_steps}"]


def summary_lines(summary: dict[str, Any]) -> list[str]:
    """The summary for a terminal."""
    codec, model = summary["codec"], summary["model"]
    minutes = {name: 60 * hours for name, hours in summary["hours"]["by_modality"].items()}
    lines = ["audio: " + ", ".join(f"{name} {value:.1f} min" for name, value in minutes.items())]
    for stage, counts in summary["stages"].items():
        read, written, rejected = (counts[name] for name in ("read", "written", "rejected"))
        lines.append(f"{stage}: {read} read = {written} written + {rejected} rejected")
    for modality, counts in summary["evaluation"]["clips"].items():
        held_out, trained = counts["test"] + counts["validation"], counts["train"]
        lines.append(f"evaluated {modality}: {held_out} held-out clips, {trained} training clips")
    first, last = model["first"]["loss/flow"], model["last"]["loss/flow"]
    return [
        *lines,
        f"codec loss: {codec['loss_first']:.3f} -> {codec['loss_last']:.3f}, "
        f"{codec['steps']} steps",
        f"model flow loss: {first:.3f} -> {last:.3f}, {model['steps']} steps",
        f"seconds: {sum(summary['seconds'].values()):.0f}",
    ]


def next_commands(out: Path) -> list[str]:
    """What a person wants after the demo."""
    more = CONFIGS / "train_tiny_cpu.yaml"
    return [
        f"mlflow ui --backend-store-uri sqlite:///{out / 'mlflow.db'}   # curves and samples",
        f"audiocalm serve --bundle {out / 'bundle'}   # streaming endpoint and playground",
        f"audiocalm train --shards {out / 'data' / 'train-shards'} --config {more}"
        f" --output {out / 'training-longer'} --set optim.num_steps=5000   # train more",
    ]
