"""Show the state of a submitted job and how far it is; --follow attaches to it again."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from jobs.options import add_address, main_of, parser, run
from jobs.watch import ending, watch
from pipeline.progress import ProgressReader
from pipeline.submission.client import connect, find_job, persistent
from pipeline.submission.follow import PATIENCE_S


def build_parser() -> ArgumentParser:
    """Parser of the command line."""
    built = parser("status", __doc__ or "", has_settings=False)
    built.add_argument("job", metavar="NAME", help="name or id of the job")
    follow = "show progress until the job ends; the exit code is that of the job"
    built.add_argument("--follow", "-f", action="store_true", help=follow)
    add_address(built)
    return built


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `audiocalm status`; with --follow it returns the exit code of the job."""
    options = build_parser().parse_args(argv)
    return run(lambda: show(options), options)


def show(options: Namespace) -> int:
    """Print state, progress and entry point, or follow the job."""
    server = connect(options.address)
    job = find_job(server, options.job)
    if options.follow:
        return watch(server, job.submission_id)
    log = persistent(lambda: server.get_job_logs(job.submission_id), patience_s=PATIENCE_S)
    reader = ProgressReader()
    for line in log.splitlines():
        reader.read(line)
    print(ending(job))
    print(f"id        {job.submission_id}")
    print(f"progress  {reader.progress or 'none reported'}")
    print(f"command   {job.entrypoint}")
    return 0


if __name__ == "__main__":
    main_of(main)
