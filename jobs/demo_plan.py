"""What the demo runs: ordinary commands over one folder, and what to try after it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: Under which its seconds are reported.
        words: The command line after `audiocalm`.
        sample: WAV file that it writes, if it generates one.
    """

    name: str
    words: list[str]
    sample: Path | None = None


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
    lines = [
        ["starter-corpus", "--out", corpus, "--minutes", f"{minutes:g}", "--seed", str(seed)],
        ["ingest", "--input", corpus, "--output", clips],
        [
            "train-codec",
            "--clips",
            clips,
            "--output",
            str(codec_run),
            *_config("codec", codec_steps),
        ],
        ["prepare", "--input", corpus, "--codec", codec, "--output", data, *_config("prepare")],
        [
            "train",
            "--shards",
            shards,
            "--codec",
            codec,
            "--output",
            training,
            *_config("train", train_steps),
        ],
        ["export", "--run", training, "--codec", codec, "--output", bundle],
    ]
    steps = [Step(line[0], line) for line in lines]
    for modality, prompt in PROMPTS.items():
        wav = out / "samples" / f"{modality}.wav"
        line = ["generate", f"--bundle={bundle}", *prompt, f"--seed={seed}", f"--out={wav}"]
        steps.append(Step(f"generate {modality}", line, wav))
    measure = ["evaluate", "--bundle", bundle, "--data", data, "--output", str(out / "evaluation")]
    steps.append(Step("evaluate", [*measure, "--set", "per_modality=4", "--set", "num_digits=8"]))
    return steps


def _config(kind: str, num_steps: int | None = None) -> list[str]:
    recipe = ["--config", str(CONFIGS / f"{kind}_tiny_cpu.yaml")]
    return recipe if num_steps is None else [*recipe, "--set", f"optim.num_steps={num_steps}"]


def next_commands(out: Path) -> list[str]:
    """What a person wants after the demo."""
    more = CONFIGS / "train_tiny_cpu.yaml"
    return [
        f"mlflow ui --backend-store-uri sqlite:///{out / 'mlflow.db'}   # curves and samples",
        f"audiocalm serve --bundle {out / 'bundle'}   # streaming endpoint and playground",
        f"audiocalm train --shards {out / 'data' / 'train-shards'} --config {more}"
        f" --output {out / 'training-longer'} --set optim.num_steps=5000   # train more",
    ]
