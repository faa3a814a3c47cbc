"""Encode clips/ to latents/: codec posteriors, speaker embeddings, measured attributes.

Clips that are encoded already are skipped.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from jobs.options import add_dry_run, add_retry_rejects, main_of, parser, run, settings_from
from pipeline.data.encode import EncodeSettings, encode
from pipeline.data.prepare import summary
from pipeline.storage import Folder


def build_parser() -> ArgumentParser:
    """Parser of the command line."""
    built = parser("encode", __doc__ or "")
    built.add_argument(
        "--clips", required=True, metavar="DIR", help="directory that `ingest` wrote"
    )
    built.add_argument(
        "--codec", required=True, metavar="DIR", help="codec folder, or the name of a shipped codec"
    )
    built.add_argument("--output", required=True, metavar="DIR", help="latents/ directory to write")
    add_dry_run(built)
    add_retry_rejects(built)
    return built


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `audiocalm encode`; returns the exit code."""
    options = build_parser().parse_args(argv)
    return run(lambda: encode_clips(options), options)


def encode_clips(options: Namespace) -> None:
    """Run the stage and print its counts."""
    settings = settings_from(
        EncodeSettings,
        options,
        resources__dry_run=options.dry_run,
        resources__retry_rejects=options.retry_rejects,
    )
    card = encode(Folder.at(options.clips), Folder.at(options.output), settings, options.codec)
    print(summary({"encode": card}))


if __name__ == "__main__":
    main_of(main)
