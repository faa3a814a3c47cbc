"""List the jobs of a cluster, newest first."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from datetime import datetime

from jobs.options import add_address, main_of, parser, positive, run
from pipeline.submission.client import COMMAND, connect, job_name, state_of, submitted_jobs


def build_parser() -> ArgumentParser:
    """Parser of the command line."""
    built = parser("list", __doc__ or "", has_settings=False)
    add_address(built)
    number = "how many jobs to list; default: 20"
    built.add_argument("--number", type=positive, default=20, metavar="N", help=number)
    return built


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `audiocalm list`; returns the exit code."""
    options = build_parser().parse_args(argv)
    return run(lambda: print_jobs(options), options)


def print_jobs(options: Namespace) -> None:
    """Print a table: name, state, command and start."""
    rows = [("NAME", "STATE", "COMMAND", "STARTED")]
    for job in submitted_jobs(connect(options.address))[: options.number]:
        started = datetime.fromtimestamp((job.start_time or 0) / 1000)
        command = (job.metadata or {}).get(COMMAND, "-")
        rows.append((job_name(job), state_of(job), command, f"{started:%Y-%m-%d %H:%M:%S}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())


if __name__ == "__main__":
    main_of(main)
