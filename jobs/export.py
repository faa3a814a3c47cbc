"""Write a checkpoint as a bundle that generates and serves."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.options import main_of, parser, run
from pipeline.errors import SettingsError

if TYPE_CHECKING:
    from pipeline.storage import Folder


def build_parser() -> ArgumentParser:
    """Parser of the command line."""
    built = parser("export", __doc__ or "", has_settings=False)
    built.add_argument("--run", required=True, metavar="RUN", help="run directory of a training")
    built.add_argument(
        "--step", type=int, metavar="N", help="step of the checkpoint; default: the newest"
    )
    sampling = "YAML with sampling options by modality where requests set none; default: the run's"
    built.add_argument("--sampling", metavar="FILE", help=sampling)
    codec = "codec of the training data: a folder, which is copied, or the name of a shipped one"
    built.add_argument("--codec", required=True, metavar="DIR", help=codec)
    halves = "type of the stored weights; default: fp32. A CPU loads them as fp32"
    built.add_argument("--weights", default="fp32", choices=("fp32", "fp16", "bf16"), help=halves)
    about = "YAML mappings for the model card: name, licence, data, limits, ..."
    built.add_argument("--card", nargs="+", default=(), metavar="FILE", help=about)
    measured = "results.json of `evaluate` on an earlier export of these weights, for the card"
    built.add_argument("--results", metavar="FILE", help=measured)
    voices = "YAML recipes of named voices; default: speakers with most clips. Needs --shards"
    built.add_argument("--voices", nargs="+", metavar="FILE", help=voices)
    spoken = "voice that words alone are spoken in, where a request names no voice"
    built.add_argument("--default-voice", metavar="NAME", help=spoken)
    built.add_argument("--shards", metavar="DIR", help="train-shards that the voices are made from")
    built.add_argument("--output", required=True, metavar="BUNDLE", help="bundle to write")
    return built


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `audiocalm export`; returns the exit code."""
    built = build_parser()
    options = built.parse_args(argv)
    if (options.voices is None) != (options.shards is None):
        built.error("--voices and --shards go together")
    return run(lambda: _export(options), options)


def _export(options: Namespace) -> None:
    """Write the bundle and print its digest."""
    from model.bundle.bundle import read_manifest
    from model.bundle.card import DEFAULT_VOICE_KEY
    from pipeline.settings import read_recipe
    from pipeline.storage import Folder
    from pipeline.training.export import export_run, run_voices
    from pipeline.training.shards import TrainShards

    training = Folder.at(options.run)
    about = _merged(options.card)
    if options.results is not None:
        about["measures"] = _measures(options, training)
    if options.default_voice is not None:
        about[DEFAULT_VOICE_KEY] = options.default_voice
    voices = None
    if options.voices is not None:
        shards = TrainShards(Folder.at(options.shards))
        voices = run_voices(training, shards, _merged(options.voices))
    output = Path(options.output)
    sampling = None if options.sampling is None else read_recipe(Path(options.sampling))
    codec, step = Path(options.codec), options.step
    card = export_run(training, codec, output, step, sampling, options.weights, about, voices)
    found = read_manifest(output)[1]
    print(f"step {card['step']} of {options.run} exported to {output}, digest {found}")


def _merged(paths: Sequence[str]) -> dict[str, Any]:
    """The entries of several YAML files; of entries with one name the last."""
    from pipeline.settings import read_recipe

    return {name: value for path in paths for name, value in read_recipe(Path(path)).items()}


def _measures(options: Namespace, training: Folder) -> str:
    """Tables of an evaluation of the same weights, as Markdown."""
    from pipeline.evaluation.tables import markdown_tables
    from pipeline.training.export import exported_weights

    results: dict[str, Any] = json.loads(Path(options.results).read_bytes())
    wanted, found = exported_weights(training, options.step), results.get("weights")
    if found != wanted:
        raise SettingsError(
            f"{options.results} measured the weights {found}, and {wanted} are exported; evaluate "
            "an export of the same run and step"
        )
    return markdown_tables(results)


if __name__ == "__main__":
    main_of(main)
