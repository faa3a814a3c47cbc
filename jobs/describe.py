"""Write several descriptions of every clip that has latents to descriptions/.

A grammar composes them from metadata and measured attributes; a language model may rewrite them. No
audio is read, unless a captioner is set.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from jobs.options import add_dry_run, add_retry_rejects, main_of, parser, run, settings_from
from pipeline.data.describe import DescribeSettings, describe
from pipeline.data.prepare import summary
from pipeline.storage import Folder


def build_parser() -> ArgumentParser:
    """Parser of the command line."""
    built = parser("describe", __doc__ or "")
    built.add_argument(
        "--clips", required=True, metavar="DIR", help="directory that `ingest` wrote"
    )
    built.add_argument(
        "--latents", required=True, metavar="DIR", help="directory that `encode` wrote"
    )
    built.add_argument(
        "--output", required=True, metavar="DIR", help="descriptions/ directory to write"
    )
    add_dry_run(built)
    add_retry_rejects(built)
    return built


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `audiocalm describe`; returns the exit code."""
    options = build_parser().parse_args(argv)
    return run(lambda: describe_clips(options), options)


def describe_clips(options: Namespace) -> None:
    """Run the stage and print its counts."""
    settings = settings_from(
        DescribeSettings,
        options,
        resources__dry_run=options.dry_run,
        resources__retry_rejects=options.retry_rejects,
    )
    clips, latents = Folder.at(options.clips), Folder.at(options.latents)
    print(summary({"describe": describe(clips, latents, Folder.at(options.output), settings)}))


if __name__ == "__main__":
    main_of(main)
