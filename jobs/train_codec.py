"""`audiocalm train-codec`: train an audio codec on ingested clips, on Ray Train."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.options import configure_log, main_of, parser, run, settings_from


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    built = parser(
        "train-codec",
        "Train an audio codec on ingested clips.\n\n"
        "Running the same command again goes on from the last checkpoint; Ctrl-C and SIGTERM "
        "save one first. The learning rate and its schedule, the clip norm, the number of steps "
        "and crops.skip_steps may differ from the start before; every change is recorded. The "
        "finished codec is OUTPUT/codec.",
    )
    built.add_argument("--clips", required=True, help="directory written by ingest")
    built.add_argument("--output", required=True, help="directory of this run")
    options = built.parse_args(argv)

    def body() -> None:
        from pipeline.storage import Folder
        from pipeline.training.codec_job import train_codec
        from pipeline.training.codec_settings import TrainCodecSettings

        settings = settings_from(TrainCodecSettings, options)
        clips, output = Folder.at(options.clips), Folder.at(options.output)
        metrics = train_codec(settings, clips, output, configure_log)
        if metrics.get("state") == "stopped":
            print(f"stopped at step {metrics['step']} of {metrics['num_steps']}: {options.output}")
            print("run the same command again to go on")
            return
        print(
            f"codec in {options.output}/codec: loss {metrics['loss_first']:.3f} -> "
            f"{metrics['loss_last']:.3f}, validation {metrics['validation']['total']:.3f}"
        )

    return run(body, options)


if __name__ == "__main__":
    main_of(main)
