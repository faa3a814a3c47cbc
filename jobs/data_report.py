"""One HTML page about a prepared directory: hours, lengths, attributes, texts, rejects to hear.

DIR is what `prepare` wrote, or one stage's directory; it need not be complete. The page opens from
disk. It is logged to MLflow with the cards of the stages; `--set tracking.is_enabled=false` does
without.
"""

from __future__ import annotations

from collections.abc import Sequence

from jobs.options import main_of, parser, run, settings_from


def main(argv: Sequence[str] | None = None) -> int:
    """Write the report; returns the exit code."""
    built = parser("data-report", __doc__ or "")
    built.add_argument("directory", metavar="DIR", help="what `prepare` or one stage wrote")
    built.add_argument("--output", metavar="FILE", help="HTML file (default: DIR/report.html)")
    options = built.parse_args(argv)

    def body() -> None:
        from pipeline.data.report.write import DataReportSettings, write_data_report
        from pipeline.storage import Folder

        settings = settings_from(DataReportSettings, options)
        place = write_data_report(Folder.at(options.directory), settings, options.output)
        print(f"wrote {place}")

    return run(body, options)


if __name__ == "__main__":
    main_of(main)
