"""Turn corpora into train-shards: ingest, encode, describe and shard in a row.

Stages that are up to date are skipped, so the same command again does only what is missing.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from jobs.options import add_dry_run, add_retry_rejects, main_of, parser, run, settings_from
from pipeline.data.prepare import FOLDERS, PrepareSettings, prepare, preview_text, summary
from pipeline.errors import PlannedOnlyError
from pipeline.storage import Folder


def build_parser() -> ArgumentParser:
    """Parser of the command line."""
    built = parser("prepare", __doc__ or "")
    built.add_argument(
        "--input", nargs="+", action="extend", metavar="DIR", help="directory with corpora"
    )
    built.add_argument(
        "--codec", required=True, metavar="DIR", help="codec folder, or the name of a shipped codec"
    )
    built.add_argument(
        "--output",
        required=True,
        metavar="DIR",
        help=f"directory to write; holds {', '.join(FOLDERS.values())}",
    )
    add_dry_run(built)
    add_retry_rejects(built)
    return built


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `audiocalm prepare`; returns the exit code."""
    options = build_parser().parse_args(argv)
    return run(lambda: prepare_corpora(options), options)


def prepare_corpora(options: Namespace) -> None:
    """Run the stages and print the counts of each, or in a dry run what they would do."""
    flags = {name: getattr(options, name) for name in ("dry_run", "retry_rejects")}
    of_stages = {
        f"{stage}__resources__{name}": flag for stage in FOLDERS for name, flag in flags.items()
    }
    settings = settings_from(PrepareSettings, options, ingest__inputs=options.input, **of_stages)
    try:
        print(summary(prepare(settings, Folder.at(options.output), options.codec)))
    except PlannedOnlyError as planned:
        print(preview_text(planned))


if __name__ == "__main__":
    main_of(main)
