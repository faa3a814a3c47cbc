"""Export a checkpoint as a bundle that generates and serves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.options import main_of, parser, run


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `audiocalm export`."""
    built = parser("export", __doc__ or "", has_settings=False)
    built.add_argument("--run", required=True, metavar="RUN", help="run directory of a training")
    built.add_argument("--step", type=int, metavar="N", help="checkpoint; default: the newest")
    steps = "solver steps a block where a request does not say; default: the run's"
    built.add_argument("--flow-steps", type=int, metavar="N", help=steps)
    codec = "codec of the training data: a folder, which is copied, or the name of a shipped one"
    built.add_argument("--codec", required=True, metavar="DIR", help=codec)
    halves = "type of the stored weights (default fp32); they are loaded as fp32 on a CPU"
    built.add_argument("--weights", default="fp32", choices=("fp32", "fp16", "bf16"), help=halves)
    about = "YAML mapping for the model card: name, licence, data, limits, ..."
    built.add_argument("--card", metavar="FILE", help=about)
    built.add_argument("--output", required=True, metavar="BUNDLE", help="bundle to write")
    options = built.parse_args(argv)

    def body() -> None:
        from model.bundle.bundle import read_manifest
        from pipeline.storage import Folder
        from pipeline.training.export import export_run

        card = export_run(
            Folder.at(options.run),
            Path(options.codec),
            Path(options.output),
            options.step,
            options.flow_steps,
            options.weights,
            _about(options.card),
        )
        found = read_manifest(options.output)[1]
        print(f"step {card['step']} of {options.run} exported to {options.output}, digest {found}")

    return run(body, options)


def _about(path: str | None) -> dict[str, Any]:
    from pipeline.settings import read_recipe

    return {} if path is None else read_recipe(Path(path))


if __name__ == "__main__":
    main_of(main)
