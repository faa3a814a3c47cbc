"""Read corpora in the layouts of their publishers, check every clip, and write clips/.

Every directory below an input that a layout recognises is a corpus. Every item is either written or
rejected with a reason, in rejects/ of the output. Running again does only what is new.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from jobs.options import add_dry_run, add_retry_rejects, main_of, parser, run, settings_from
from pipeline.data.ingest import IngestSettings, ingest
from pipeline.data.prepare import summary
from pipeline.storage import Folder


def build_parser() -> ArgumentParser:
    """Parser of the command line."""
    built = parser("ingest", __doc__ or "")
    built.add_argument(
        "--input", nargs="+", action="extend", metavar="DIR", help="directory with corpora"
    )
    built.add_argument("--output", required=True, metavar="DIR", help="clips/ directory to write")
    add_dry_run(built)
    add_retry_rejects(built)
    return built


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `audiocalm ingest`; returns the exit code."""
    options = build_parser().parse_args(argv)
    return run(lambda: ingest_corpora(options), options)


def ingest_corpora(options: Namespace) -> None:
    """Run the stage and print its counts."""
    settings = settings_from(
        IngestSettings,
        options,
        inputs=options.input,
        resources__dry_run=options.dry_run,
        resources__retry_rejects=options.retry_rejects,
    )
    print(summary({"ingest": ingest(settings, Folder.at(options.output))}))


if __name__ == "__main__":
    main_of(main)
