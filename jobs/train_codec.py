"""Train an audio codec on ingested clips, on Ray Train.

The finished codec is OUTPUT/codec. Running the same command again continues from the last
checkpoint; Ctrl-C and SIGTERM save one first. The learning rate and its schedule, the clip norm,
the number of steps and crops.skip_steps may differ from the previous start; every change is
recorded.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from jobs.options import configure_log, main_of, parser, run, settings_from


def build_parser() -> ArgumentParser:
    """Parser of the command line."""
    built = parser("train-codec", __doc__ or "")
    built.add_argument(
        "--clips", required=True, metavar="DIR", help="directory that `ingest` wrote"
    )
    built.add_argument("--output", required=True, metavar="RUN", help="run directory to write")
    return built


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `audiocalm train-codec`; returns the exit code."""
    options = build_parser().parse_args(argv)
    return run(lambda: train(options), options)


def train(options: Namespace) -> None:
    """Train until the last step or a signal, and print where the run stands."""
    from pipeline.storage import Folder
    from pipeline.training.codec.job import train_codec
    from pipeline.training.codec.settings import TrainCodecSettings

    settings = settings_from(TrainCodecSettings, options)
    clips, output = Folder.at(options.clips), Folder.at(options.output)
    metrics = train_codec(settings, clips, output, configure_log)
    if metrics.get("state") == "stopped":
        print(f"stopped at step {metrics['step']} of {metrics['num_steps']}: {options.output}")
        print("run the same command again to continue")
        return
    print(
        f"codec in {options.output}/codec: loss {metrics['loss_first']:.3f} -> "
        f"{metrics['loss_last']:.3f}, validation {metrics['validation']['total']:.3f}"
    )


if __name__ == "__main__":
    main_of(main)
