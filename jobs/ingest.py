"""Corpora -> clips/: read layouts, decode, check, reject with reasons."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.options import add_dry_run, add_retry_rejects, main_of, parser, run, settings_from
from pipeline.data.ingest import IngestSettings, ingest
from pipeline.data.prepare import summary
from pipeline.storage import Folder

DESCRIPTION = """Read corpora in the layouts of their publishers and write clips/.

Every directory below an input that a layout recognises is a corpus. What is read is either written
or rejected with a reason, in rejects/ of the output. Running again does only what is new.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the ingest job."""
    options_parser = parser("ingest", DESCRIPTION)
    options_parser.add_argument(
        "--input", nargs="+", action="extend", metavar="DIR", help="directory with corpora"
    )
    options_parser.add_argument("--output", required=True, metavar="DIR", help="clips/ directory")
    add_dry_run(options_parser)
    add_retry_rejects(options_parser)
    options = options_parser.parse_args(argv)

    def body() -> None:
        settings = settings_from(
            IngestSettings,
            options,
            inputs=options.input,
            resources__dry_run=options.dry_run,
            resources__retry_rejects=options.retry_rejects,
        )
        card = ingest(settings, Folder.at(options.output))
        print(summary({"ingest": card}))

    return run(body, options)


if __name__ == "__main__":
    main_of(main)
