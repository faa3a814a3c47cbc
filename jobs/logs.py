"""Print the log of a submitted job; --follow prints new lines until the job ends."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from jobs.options import add_address, main_of, parser, run
from pipeline.submission.client import connect, exit_code, find_job, persistent
from pipeline.submission.follow import PATIENCE_S, follow


def build_parser() -> ArgumentParser:
    """Parser of the command line."""
    built = parser("logs", __doc__ or "", has_settings=False)
    built.add_argument("job", metavar="NAME", help="name or id of the job")
    follow = "print new lines until the job ends; the exit code is that of the job"
    built.add_argument("--follow", "-f", action="store_true", help=follow)
    add_address(built)
    return built


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `audiocalm logs`; with --follow it returns the exit code of the job."""
    options = build_parser().parse_args(argv)
    return run(lambda: print_log(options), options)


def print_log(options: Namespace) -> int:
    """Print the log; returns the exit code."""
    server = connect(options.address)
    job_id = find_job(server, options.job).submission_id
    if options.follow:
        return exit_code(follow(server, job_id, lambda line: print(line, flush=True)))
    print(persistent(lambda: server.get_job_logs(job_id), patience_s=PATIENCE_S), end="")
    return 0


if __name__ == "__main__":
    main_of(main)
