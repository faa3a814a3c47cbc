"""Train the model on train-shards; the same command again continues where it stopped.

Ctrl-C and SIGTERM save a checkpoint first. The learning rate and its schedule, the clip norm, the
number of steps and feed.skip_steps may differ from the previous start; every change is recorded.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from jobs.options import configure_log, main_of, parser, run, settings_from
from pipeline.training.settings import TrainSettings


def build_parser() -> ArgumentParser:
    """Parser of the command line."""
    built = parser("train", __doc__ or "")
    add_run_options(built)
    built.add_argument(
        "--init-from",
        metavar="RUN[@STEP]|BUNDLE",
        help="weights to start from: the average of a run, or a bundle; sets model.init_from",
    )
    return built


def add_run_options(built: ArgumentParser) -> None:
    """Add the options of every training of the model: shards, run directory, codec and mixture."""
    built.add_argument(
        "--shards", required=True, metavar="DIR", help="train-shards that `prepare` wrote"
    )
    built.add_argument("--output", required=True, metavar="RUN", help="run directory to write")
    built.add_argument(
        "--codec", metavar="DIR", help="codec of the shards, to make samples during training"
    )
    built.add_argument(
        "--mixture", metavar="FILE", help="YAML with weights by modality, language and corpus"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `audiocalm train`; returns the exit code."""
    options = build_parser().parse_args(argv)
    return run(lambda: train(options), options)


def train(options: Namespace) -> None:
    """Train as the options say."""
    run_training(settings_from(TrainSettings, options, model__init_from=options.init_from), options)


def run_training(settings: TrainSettings, options: Namespace) -> None:
    """Train until the last step or a signal, and print how far the run is.

    Args:
        settings: The settings of the run, without its mixture.
        options: Parsed `add_run_options`.
    """
    if options.mixture:
        from pipeline.training.mixture import with_mixture

        settings = with_mixture(settings, options.mixture)
    from pipeline.training.run import train_run

    summary = train_run(settings, options.shards, options.output, options.codec, configure_log)
    last = summary["last"].get("loss/total", float("nan"))
    print(f"{summary['state']} at step {summary['step']} of {summary['num_steps']}, ", end="")
    print(f"loss {last:.4f}, {summary['seconds']:.0f} s: {options.output}")
    if summary["state"] == "stopped":
        print("run the same command again to continue")


if __name__ == "__main__":
    main_of(main)
