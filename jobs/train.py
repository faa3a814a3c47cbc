"""Train the model on train-shards; the same command again goes on where it stopped.

Ctrl-C and SIGTERM save a checkpoint first. The learning rate and its schedule, the clip norm, the
number of steps and feed.skip_steps may differ from the start before; every change is recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jobs.options import configure_log, main_of, parser, run, settings_from
from pipeline.training.settings import TrainSettings


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `audiocalm train`."""
    built = parser("train", __doc__ or "")
    built.add_argument("--shards", required=True, metavar="DIR", help="complete train-shards")
    built.add_argument("--output", required=True, metavar="RUN", help="run directory")
    built.add_argument("--codec", metavar="DIR", help="codec; samples need it")
    built.add_argument(
        "--init-from",
        metavar="RUN[@STEP]|BUNDLE",
        help="weights to start from: the average of a run, or a bundle; sets model.init_from",
    )
    built.add_argument(
        "--mixture", metavar="FILE", help="YAML with weights by modality, language and corpus"
    )
    options = built.parse_args(argv)

    def body() -> None:
        settings = settings_from(TrainSettings, options, model__init_from=options.init_from)
        if options.mixture:
            from pipeline.training.mixture import with_mixture

            settings = with_mixture(settings, options.mixture)
        from pipeline.training.run import train_run

        summary = train_run(settings, options.shards, options.output, options.codec, configure_log)
        print_summary(summary, options.output)

    return run(body, options)


def print_summary(summary: Mapping[str, Any], output: str) -> None:
    """How a run ended."""
    last = summary["last"].get("loss/total", float("nan"))
    print(f"{summary['state']} at step {summary['step']} of {summary['num_steps']}, ", end="")
    print(f"loss {last:.4f}, {summary['seconds']:.0f} s: {output}")
    if summary["state"] == "stopped":
        print("run the same command again to go on")


if __name__ == "__main__":
    main_of(main)
