"""The commands of the demo over one folder, and commands to try after it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIGS = Path(__file__).parent / "configs"

PROMPTS: dict[str, tuple[str, ...]] = {
    "digit": (
        "--modality=speech",
        "--description=A woman says a single English word, clearly and without hurry.",
        "--transcript=nine",
        "--language=en",
    ),
    "speech": (
        "--modality=speech",
        "--description=A deep, calm voice of an American man, speaking at a normal pace.",
        "--transcript=The ferry leaves at seven.",
        "--language=en",
    ),
    "sound": (
        "--modality=sound",
        "--description=Heavy rain falls.",
        "--seconds=4",
    ),
    "music": (
        "--modality=music",
        "--description=A driving, fast techno tune at 126 BPM.",
        "--seconds=6",
    ),
}
"""Clips of each modality, in words of the starter corpus."""

_SHOWN = ("--description", "--transcript")
_MEASURED = ("per_modality=5", "num_digits=8", "fill_from_training=true", "classifier_clips=0")
"""Minutes of audio hold out one or two clips of music: training clips make up the number, and the
summary says how many. They are too few to train classifiers on."""


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: Name under which its seconds are reported.
        words: Command line after `audiocalm`.
        sample: WAV file that it generates, and the words it is made from.
        spoken: The digit that the sample speaks.
    """

    name: str
    words: list[str]
    sample: tuple[Path, str] | None = None
    spoken: str | None = None

    @property
    def uses_ray(self) -> bool:
        """Whether the command computes on Ray."""
        return self.words[0] != "generate"


@dataclass(frozen=True)
class Sizes:
    """Amount of data and training in the demo.

    Attributes:
        minutes: Minutes of starter corpus.
        seed: Seed of corpus and samples.
        codec_steps: Optimiser steps of the codec; None uses the number in the recipe.
        train_steps: Optimiser steps of the model; None uses the number in the recipe.
    """

    minutes: float
    seed: int = 0
    codec_steps: int | None = None
    train_steps: int | None = None


def plan(out: Path, sizes: Sizes, bundle: str) -> list[Step]:
    """Commands of the demo with a shipped bundle: audio first, then the whole way from it.

    Args:
        out: Absolute folder of the demo.
        sizes: Amount of data and training.
        bundle: Bundle to listen to, and to start the training from.

    Raises:
        BundleError: If the bundle is incomplete or altered.
    """
    from model.bundle.bundle import bundle_codec

    codec = str(bundle_codec(bundle))
    corpus, data, training = (str(out / name) for name in ("corpus", "data", "training"))
    minutes, seed = f"{sizes.minutes:g}", str(sizes.seed)
    make = ["starter-corpus", "--out", corpus, "--minutes", minutes, "--seed", seed]
    make += _english_speech()
    prepare = ["prepare", "--input", corpus, "--codec", codec, "--output", data]
    prepare += _config("prepare_tiny_cpu")
    train = ["train", "--init-from", bundle, "--shards", str(out / "data" / "train-shards")]
    train += ["--output", training, *_config("train_tiny_demo", sizes.train_steps)]
    trained = str(out / "bundle")
    export = ["export", "--run", training, "--codec", codec, "--output", trained]
    return [
        *_generations(out / "first", bundle, sizes.seed, "generate first"),
        Step("starter-corpus", make),
        Step("prepare", prepare),
        Step("evaluate before", _evaluation(bundle, data, out / "evaluation-before")),
        Step("train", train),
        Step("export", export),
        *_generations(out / "samples", trained, sizes.seed, "generate"),
        Step("evaluate", _evaluation(trained, data, out / "evaluation")),
    ]


def plan_from_scratch(out: Path, sizes: Sizes) -> list[Step]:
    """Commands of the demo that trains codec and model from nothing.

    Args:
        out: Absolute folder of the demo.
        sizes: Amount of data and training.
    """
    corpus, data, training = str(out / "corpus"), str(out / "data"), str(out / "training")
    clips, shards = str(out / "data" / "clips"), str(out / "data" / "train-shards")
    codec_run, bundle = out / "codec-training", str(out / "bundle")
    codec = str(codec_run / "codec")
    for_codec = _config("codec_tiny_cpu", sizes.codec_steps)
    for_train = _config("train_tiny_cpu", sizes.train_steps)
    for_data = ["--codec", codec, "--output", data, *_config("prepare_tiny_cpu")]
    from_shards = ["--shards", shards, "--codec", codec, "--set", "sample.every=80"]
    minutes, seed = f"{sizes.minutes:g}", str(sizes.seed)
    lines = [
        ["starter-corpus", "--out", corpus, "--minutes", minutes, "--seed", seed],
        ["ingest", "--input", corpus, "--output", clips],
        ["train-codec", "--clips", clips, "--output", str(codec_run), *for_codec],
        ["prepare", "--input", corpus, *for_data],
        ["train", *from_shards, "--output", training, *for_train],
        ["export", "--run", training, "--codec", codec, "--output", bundle],
    ]
    return [
        *(Step(line[0], line) for line in lines),
        *_generations(out / "samples", bundle, sizes.seed, "generate"),
        Step("evaluate", _evaluation(bundle, data, out / "evaluation")),
    ]


def _english_speech() -> list[str]:
    """Settings of a corpus in the language of the shipped model, and in its voices where Flite is
    installed."""
    from pipeline.data.starter.flite import PROGRAM

    settings = ["--set", "speech.languages={en: 1}"]
    if shutil.which(PROGRAM):
        settings += ["--set", "speech.engines={flite: 1}"]
    return settings


def _generations(folder: Path, bundle: str, seed: int, name: str) -> list[Step]:
    """The clips of a bundle."""
    steps = []
    for sample, prompt in PROMPTS.items():
        wav = folder / f"{sample}.wav"
        line = ["generate", f"--bundle={bundle}", *prompt, f"--seed={seed}", f"--out={wav}"]
        asked = {option: said for option, _, said in (word.partition("=") for word in prompt)}
        text = " ".join(said for option, said in asked.items() if option in _SHOWN)
        spoken = asked.get("--transcript") if sample == "digit" else None
        steps.append(Step(f"{name} {sample}", line, (wav, text), spoken))
    return steps


def _evaluation(bundle: str, data: str, output: Path) -> list[str]:
    words = ["evaluate", "--bundle", bundle, "--data", data, "--output", str(output)]
    for setting in _MEASURED:
        words += ["--set", setting]
    return words


def _config(name: str, num_steps: int | None = None) -> list[str]:
    recipe = ["--config", str(CONFIGS / f"{name}.yaml")]
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
    for name, word in summary["heard"].items():
        lines.append(
            f"{name} says {word['said']!r}, a recogniser of digits hears {word['heard']!r}"
        )
    if codec is not None:
        first, last = codec["loss_first"], codec["loss_last"]
        lines.append(f"codec loss: {first:.3f} -> {last:.3f}, {codec['steps']} steps")
    first, last = model["first"]["loss/flow"], model["last"]["loss/flow"]
    return [
        *lines,
        f"model flow loss: {first:.3f} -> {last:.3f}, {model['steps']} steps",
        f"seconds: {sum(summary['seconds'].values()):.0f}",
    ]


def next_commands(out: Path) -> list[str]:
    """Commands to try after the demo."""
    more = CONFIGS / "train_tiny_cpu.yaml"
    return [
        f"mlflow ui --backend-store-uri sqlite:///{out / 'mlflow.db'}   # curves and samples",
        f"audiocalm serve --bundle {out / 'bundle'}   # streaming endpoint and playground",
        f"audiocalm train --shards {out / 'data' / 'train-shards'} --config {more}"
        f" --output {out / 'training-longer'} --set optim.num_steps=5000   # train more",
    ]
