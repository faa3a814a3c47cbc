"""Export a checkpoint as a bundle that generates and serves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jobs.options import main_of, parser, run


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `audiocalm export`."""
    built = parser("export", __doc__ or "", has_settings=False)
    built.add_argument("--run", required=True, metavar="RUN", help="run directory of a training")
    built.add_argument("--step", type=int, metavar="N", help="checkpoint; default: the newest")
    steps = "solver steps a block where a request does not say; default: the run's"
    built.add_argument("--flow-steps", type=int, metavar="N", help=steps)
    built.add_argument("--codec", required=True, metavar="DIR", help="codec of the training data")
    built.add_argument("--output", required=True, metavar="BUNDLE", help="bundle to write")
    options = built.parse_args(argv)

    def body() -> None:
        from pipeline.storage import Folder
        from pipeline.training.export import export_run

        card = export_run(
            Folder.at(options.run),
            Path(options.codec),
            Path(options.output),
            options.step,
            options.flow_steps,
        )
        print(f"step {card['step']} of {options.run} exported to {options.output}")

    return run(body, options)


if __name__ == "__main__":
    main_of(main)
