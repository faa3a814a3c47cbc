"""Watch a submitted job until it ends, and say how it ended."""

from __future__ import annotations

import sys
from typing import Any

from pipeline.progress import duration_text
from pipeline.submission.client import JobServer, exit_code, job_name, state_of
from pipeline.submission.follow import ProgressDisplay, follow, last_lines

_LINES_OF_A_FAILURE = 15


def watch(server: JobServer, job_id: str, *, is_silent: bool = False) -> int:
    """Show the progress of a job until it ends; returns its exit code.

    Raises:
        KeyboardInterrupt: On Ctrl-C, after a line that says how to attach again.
        ClusterError: If the job server cannot be reached any more.
    """
    display = ProgressDisplay()
    try:
        job = follow(server, job_id, (lambda line: None) if is_silent else display)
    except KeyboardInterrupt:
        display.end_line()
        print(
            f"the job goes on; attach to it again with: audiocalm status {job_id} --follow",
            file=sys.stderr,
        )
        raise
    display.end_line()
    code = exit_code(job)
    if code:
        for line in last_lines(server, job_id, _LINES_OF_A_FAILURE):
            print(line, file=sys.stderr)
    print(ending(job))
    return code


def ending(job: Any) -> str:
    """One line about a job: name, state, duration and exit code."""
    text = f"{job_name(job)}: {state_of(job)}"
    if job.start_time and job.end_time:
        text += f" after {duration_text((job.end_time - job.start_time) / 1000)}"
    if job.driver_exit_code:
        text += f", exit code {job.driver_exit_code}"
    return text
