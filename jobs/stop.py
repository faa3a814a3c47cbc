"""Stop a submitted job; a training saves a checkpoint first, and the same command continues it.

The cluster sends SIGTERM and waits for the time that the job was submitted with (`--stop-seconds`)
before it kills the job. This command waits for the end too, unless --detach is given.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from jobs.options import add_address, main_of, parser, run
from jobs.watch import ending
from pipeline.progress import ProgressReader
from pipeline.submission.client import ENDED, connect, find_job, persistent, state_of
from pipeline.submission.follow import PATIENCE_S, last_lines

_POLL_S = 1.0
_LINES = 1000


def build_parser() -> ArgumentParser:
    """Parser of the command line."""
    built = parser("stop", __doc__ or "", has_settings=False)
    built.add_argument("job", metavar="NAME", help="name or id of the job")
    built.add_argument("--detach", action="store_true", help="request the stop, do not wait for it")
    add_address(built)
    return built


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `audiocalm stop`; returns the exit code."""
    options = build_parser().parse_args(argv)
    return run(lambda: stop(options), options)


def stop(options: Namespace) -> None:
    """Request a job to stop, wait until it has, and print the last checkpoint."""
    server = connect(options.address)
    job = find_job(server, options.job)
    job_id = job.submission_id
    if state_of(job) not in ENDED:
        persistent(lambda: server.stop_job(job_id), patience_s=PATIENCE_S)
        print("requested the stop; a training saves a checkpoint now", flush=True)
        if options.detach:
            return
    while state_of(job) not in ENDED:
        time.sleep(_POLL_S)
        job = persistent(lambda: server.get_job_info(job_id), patience_s=PATIENCE_S)
    reader = ProgressReader()
    for line in last_lines(server, job_id, _LINES):
        reader.read(line)
    print(f"{ending(job)}{f'; {reader.progress}' if reader.progress else ''}")


if __name__ == "__main__":
    main_of(main)
