"""ingest, encode, describe and shard in a row; what is done already is skipped."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.options import main_of, parser, run, settings_from
from pipeline.data.prepare import FOLDERS, PrepareSettings, prepare, summary
from pipeline.storage import Folder


def main(argv: Sequence[str] | None = None) -> int:
    """Bring corpora to train-shards; returns the exit code."""
    options_of = parser("prepare", __doc__ or "")
    options_of.add_argument(
        "--input", nargs="+", action="extend", metavar="DIR", help="directory with corpora"
    )
    options_of.add_argument("--codec", required=True, metavar="DIR", help="folder of the codec")
    options_of.add_argument(
        "--output", required=True, metavar="DIR", help=f"parent of {', '.join(FOLDERS.values())}"
    )
    options = options_of.parse_args(argv)

    def body() -> None:
        settings = settings_from(PrepareSettings, options, ingest__inputs=options.input)
        print(summary(prepare(settings, Folder.at(options.output), options.codec)))

    return run(body, options)


if __name__ == "__main__":
    main_of(main)
