"""Train a student that needs one or two flow steps a block and no guidance row.

It starts from the teacher and learns where the teacher's guided steps end. All settings are those
of `audiocalm train`; a recipe needs `optim` and `feed` as for a short continued training. Export
and serve it like any other run: its bundle asks for its own steps by default.
"""

from __future__ import annotations

from collections.abc import Sequence

from jobs.options import configure_log, main_of, parser, run, settings_from
from jobs.train import print_summary
from pipeline.training.settings import DistillSettings, TrainSettings


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `audiocalm distill`."""
    defaults = DistillSettings()
    built = parser("distill", __doc__ or "")
    built.add_argument(
        "--teacher", required=True, metavar="RUN[@STEP]|BUNDLE", help="weights to learn from"
    )
    built.add_argument("--shards", required=True, metavar="DIR", help="complete train-shards")
    built.add_argument("--output", required=True, metavar="RUN", help="run directory")
    built.add_argument("--codec", metavar="DIR", help="codec; samples need it")
    built.add_argument(
        "--flow-steps", type=int, default=defaults.num_flow_steps, help="of the student, 1 to 4"
    )
    built.add_argument(
        "--guidance",
        type=float,
        default=defaults.guidance_scale,
        help="guidance scale of the teacher that the student takes over",
    )
    options = built.parse_args(argv)

    def body() -> None:
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

    return run(body, options)


if __name__ == "__main__":
    main_of(main)
