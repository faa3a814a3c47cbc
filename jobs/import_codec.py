"""Convert a published codec of diffusers or transformers to a codec folder of this pipeline.

The folder that it writes is what `encode`, `export` and the others take as `--codec`.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from jobs.options import main_of, parser, run


def build_parser() -> ArgumentParser:
    """Parser of the command line."""
    built = parser("import-codec", __doc__ or "", has_settings=False)
    built.add_argument(
        "--source",
        required=True,
        metavar="DIR",
        help="folder with config.json and safetensors of AutoencoderOobleck, AutoencoderSAME or "
        "the VibeVoice acoustic tokenizer",
    )
    built.add_argument("--output", required=True, metavar="DIR", help="codec folder to write")
    built.add_argument(
        "--frames-stacked",
        type=int,
        metavar="N",
        help="Oobleck frames in one latent frame; default: 2",
    )
    built.add_argument(
        "--clips",
        metavar="DIR",
        help="clips/ directory to measure the importance of the latent channels on; without it "
        "feed.importance_power of a training must stay 0",
    )
    built.add_argument(
        "--sample-rate", type=int, metavar="HZ", help="fail unless the codec has this sample rate"
    )
    return built


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `audiocalm import-codec`; returns the exit code."""
    options = build_parser().parse_args(argv)
    return run(lambda: convert(options), options)


def convert(options: Namespace) -> None:
    """Convert the codec and print its rates, width, delay and digest."""
    from model.codec.conversion import read_published
    from model.codec.registry import codec_digest, save_codec

    codec = read_published(
        options.source, frames_stacked=options.frames_stacked, sample_rate=options.sample_rate
    )
    importance = None
    if options.clips is not None:
        from pipeline.training.codec.report import clip_importance

        importance = clip_importance(codec, options.clips)
    save_codec(codec, options.output, importance)
    timebase = codec.timebase
    print(
        f"{codec.name} in {options.output}: {timebase.sample_rate} Hz, "
        f"{codec.num_channels} channels, latent width {codec.latent_dim} at "
        f"{timebase.frame_rate:.2f} Hz, stream delay "
        f"{timebase.duration_s(codec.delay_samples):.2f} s, digest "
        f"{codec_digest(options.output)[:12]}, importance of its channels "
        f"{'not measured (give --clips)' if importance is None else 'measured'}"
    )


if __name__ == "__main__":
    main_of(main)
