"""Train a student that needs one or two flow steps a block and no guidance row.

It starts from the teacher and learns to reach the end of the teacher's guided steps. All settings
are those of `audiocalm train`; a recipe needs `optim` and `feed` as for a short continued training.
Export and serve it like any other run: its bundle uses its own number of steps by default.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from jobs.options import configure_log, main_of, parser, run, settings_from
from jobs.train import print_summary
from pipeline.training.settings import DistillSettings, TrainSettings


def build_parser() -> ArgumentParser:
    """Parser of the command line."""
    defaults = DistillSettings()
    built = parser("distill", __doc__ or "")
    built.add_argument(
        "--teacher", required=True, metavar="RUN[@STEP]|BUNDLE", help="weights to learn from"
    )
    built.add_argument(
        "--shards", required=True, metavar="DIR", help="train-shards that `prepare` wrote"
    )
    built.add_argument("--output", required=True, metavar="RUN", help="run directory to write")
    built.add_argument(
        "--codec", metavar="DIR", help="codec of the shards, to make samples during training"
    )
    built.add_argument(
        "--flow-steps",
        type=int,
        metavar="N",
        default=defaults.num_flow_steps,
        help=f"solver steps of the student, 1 to 4; default: {defaults.num_flow_steps}",
    )
    built.add_argument(
        "--guidance",
        type=float,
        metavar="G",
        default=defaults.guidance_scale,
        help=f"guidance scale that the student learns; default: {defaults.guidance_scale:g}",
    )
    return built


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `audiocalm distill`; returns the exit code."""
    options = build_parser().parse_args(argv)
    return run(lambda: distill(options), options)


def distill(options: Namespace) -> None:
    """Train until the last step or a signal, and print where the run stands."""
    settings = settings_from(
        TrainSettings,
        options,
        model__init_from=options.teacher,
        distill__num_flow_steps=options.flow_steps,
        distill__guidance_scale=options.guidance,
        sample__num_flow_steps=options.flow_steps,
        sample__guidance_scale=1.0,
        feed__condition_dropout=0.0,
    )
    from pipeline.training.run import train_run

    summary = train_run(settings, options.shards, options.output, options.codec, configure_log)
    print_summary(summary, options.output)


if __name__ == "__main__":
    main_of(main)
