"""ingest, encode, describe and shard in a row; what is done already is skipped."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.options import add_dry_run, add_retry_rejects, main_of, parser, run, settings_from
from pipeline.data.prepare import FOLDERS, PrepareSettings, prepare, preview_text, summary
from pipeline.errors import PlannedOnlyError
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
    add_dry_run(options_of)
    add_retry_rejects(options_of)
    options = options_of.parse_args(argv)

    def body() -> None:
        flags = {name: getattr(options, name) for name in ("dry_run", "retry_rejects")}
        of_stages = {
            f"{stage}__resources__{name}": flag for stage in FOLDERS for name, flag in flags.items()
        }
        settings = settings_from(
            PrepareSettings, options, ingest__inputs=options.input, **of_stages
        )
        try:
            print(summary(prepare(settings, Folder.at(options.output), options.codec)))
        except PlannedOnlyError as planned:
            print(preview_text(planned))

    return run(body, options)


if __name__ == "__main__":
    main_of(main)
