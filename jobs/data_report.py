"""Show a prepared directory as one HTML page: hours, lengths, attributes, texts, rejects to hear.

DIR is what `prepare` wrote, or one stage's directory; it need not be complete. The page opens from
disk. It is logged to MLflow with the cards of the stages, unless tracking.is_enabled is false.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from jobs.options import main_of, parser, run, settings_from


def build_parser() -> ArgumentParser:
    """Parser of the command line."""
    built = parser("data-report", __doc__ or "")
    built.add_argument(
        "directory", metavar="DIR", help="directory that `prepare` or one stage wrote"
    )
    built.add_argument(
        "--output", metavar="FILE", help="HTML file to write; default: DIR/report.html"
    )
    return built


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `audiocalm data-report`; returns the exit code."""
    options = build_parser().parse_args(argv)
    return run(lambda: report(options), options)


def report(options: Namespace) -> None:
    """Write the page and print where it is."""
    from pipeline.data.report.write import DataReportSettings, write_data_report
    from pipeline.storage import Folder

    settings = settings_from(DataReportSettings, options)
    place = write_data_report(Folder.at(options.directory), settings, options.output)
    print(f"wrote {place}")


if __name__ == "__main__":
    main_of(main)
