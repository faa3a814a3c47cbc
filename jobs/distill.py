"""Train a student that needs one or two flow steps a block and no guidance row.

It starts from the teacher and learns to reach the end of the teacher's guided steps. All settings
are those of `audiocalm train`; a recipe needs `optim` and `feed` as for a short continued training.
Export and serve it like any other run: its bundle uses its own number of steps by default.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from jobs.options import main_of, parser, run, settings_from
from jobs.train import add_run_options, run_training
from pipeline.training.settings import DistillSettings, TrainSettings


def build_parser() -> ArgumentParser:
    """Parser of the command line."""
    defaults = DistillSettings()
    built = parser("distill", __doc__ or "")
    built.add_argument(
        "--teacher", required=True, metavar="RUN[@STEP]|BUNDLE", help="weights to learn from"
    )
    add_run_options(built)
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
    """Train the student."""
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
    run_training(settings, options)


if __name__ == "__main__":
    main_of(main)
