"""Train the model on train-shards; the same command again continues where it stopped.

Ctrl-C and SIGTERM save a checkpoint first. The learning rate and its schedule, the clip norm, the
number of steps and feed.skip_steps may differ from the previous start; every change is recorded.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.options import configure_log, main_of, parser, run, settings_from
from pipeline.training.settings import TrainSettings


def build_parser() -> ArgumentParser:
    """Parser of the command line."""
    built = parser("train", __doc__ or "")
    built.add_argument(
        "--shards", required=True, metavar="DIR", help="train-shards that `prepare` wrote"
    )
    built.add_argument("--output", required=True, metavar="RUN", help="run directory to write")
    built.add_argument(
        "--codec", metavar="DIR", help="codec of the shards, to make samples during training"
    )
    built.add_argument(
        "--init-from",
        metavar="RUN[@STEP]|BUNDLE",
        help="weights to start from: the average of a run, or a bundle; sets model.init_from",
    )
    built.add_argument(
        "--mixture", metavar="FILE", help="YAML with weights by modality, language and corpus"
    )
    return built


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `audiocalm train`; returns the exit code."""
    options = build_parser().parse_args(argv)
    return run(lambda: train(options), options)


def train(options: Namespace) -> None:
    """Train until the last step or a signal, and print where the run stands."""
    settings = settings_from(TrainSettings, options, model__init_from=options.init_from)
    if options.mixture:
        from pipeline.training.mixture import with_mixture

        settings = with_mixture(settings, options.mixture)
    from pipeline.training.run import train_run

    summary = train_run(settings, options.shards, options.output, options.codec, configure_log)
    print_summary(summary, options.output)


def print_summary(summary: Mapping[str, Any], output: str) -> None:
    """Print how a run ended."""
    last = summary["last"].get("loss/total", float("nan"))
    print(f"{summary['state']} at step {summary['step']} of {summary['num_steps']}, ", end="")
    print(f"loss {last:.4f}, {summary['seconds']:.0f} s: {output}")
    if summary["state"] == "stopped":
        print("run the same command again to continue")


if __name__ == "__main__":
    main_of(main)
