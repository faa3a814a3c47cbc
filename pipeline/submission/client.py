"""The job server of a Ray cluster: connection, names of jobs, errors in one line."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from pipeline.errors import ClusterError

logger = logging.getLogger(__name__)

T = TypeVar("T")

ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"
NAME = "audiocalm.name"
"""Metadata of a job: the name that was given to the run."""
COMMAND = "audiocalm.command"
"""Metadata of a job: its command, such as `train`."""
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
"""States of a job that does not run any more."""

_UNKNOWN = "does not exist"


class JobServer(Protocol):
    """The part of Ray's `JobSubmissionClient` that is used here."""

    def submit_job(self, *, entrypoint: str, **options: Any) -> str:
        """Submit a job; returns its id."""

    def get_job_info(self, job_id: str) -> Any:
        """Ray's `JobDetails` of a job."""

    def get_job_logs(self, job_id: str) -> str:
        """The whole log of a job."""

    def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        """The log of a job from its beginning, in parts, until the job has ended."""

    def stop_job(self, job_id: str) -> bool:
        """Send SIGTERM to a job; returns whether it ran."""

    def list_jobs(self) -> list[Any]:
        """Every job that the cluster knows."""


def connect(address: str | None) -> JobServer:
    """Client of the job server at an address.

    Args:
        address: Address of Ray's dashboard, such as `http://127.0.0.1:8265`; None reads
            RAY_API_SERVER_ADDRESS, or RAY_ADDRESS if that is an HTTP address.

    Raises:
        ClusterError: If no address is given, or no job server answers there.
    """
    given = address or os.environ.get(ADDRESS_VARIABLE)
    if not given and os.environ.get("RAY_ADDRESS", "").startswith("http"):
        given = os.environ["RAY_ADDRESS"]
    if not given:
        raise ClusterError(
            f"no cluster is named; give --address http://HEAD:8265, or set {ADDRESS_VARIABLE}"
        )
    from ray.job_submission import JobSubmissionClient

    before = os.environ.get(ADDRESS_VARIABLE)
    os.environ[ADDRESS_VARIABLE] = given  # Ray's client prefers the variables to its argument
    try:
        with _in_one_line(f"no job server answers at {given}"):
            client: JobServer = JobSubmissionClient(given)
    finally:
        if before is None:
            del os.environ[ADDRESS_VARIABLE]
        else:
            os.environ[ADDRESS_VARIABLE] = before
    return client


def find_job(server: JobServer, name: str) -> Any:
    """The job with an id, or the newest with a name.

    Raises:
        ClusterError: If there is none, naming those that run.
    """
    jobs = submitted_jobs(server)
    for job in jobs:
        if name in (job.submission_id, job_name(job)):
            return job
    known = ", ".join(dict.fromkeys(job_name(job) for job in jobs[:5])) or "none"
    raise ClusterError(f"the cluster knows no job {name!r}; the newest are: {known}")


def refuse_running(server: JobServer, name: str) -> None:
    """Refuse the name of a job that still runs: it would write the same output twice.

    Raises:
        ClusterError: If such a job runs.
    """
    for job in submitted_jobs(server):
        if job_name(job) == name and state_of(job) not in ENDED:
            raise ClusterError(
                f"a job of the name {name!r} is {state_of(job)} as {job.submission_id}; stop it "
                f"with `audiocalm stop {name}`, or give another --name"
            )


def submitted_jobs(server: JobServer) -> list[Any]:
    """Jobs that were submitted to the job server, newest first."""
    with _in_one_line("the jobs cannot be listed"):
        jobs = [job for job in server.list_jobs() if job.submission_id]
    return sorted(jobs, key=lambda job: job.start_time or 0, reverse=True)


def job_name(job: Any) -> str:
    """Name of a job, or its id where it was submitted in another way."""
    return str((job.metadata or {}).get(NAME) or job.submission_id)


def state_of(job: Any) -> str:
    """State of a job: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
    return str(getattr(job.status, "value", job.status))


def exit_code(job: Any) -> int:
    """Exit code of a job that has ended, as a shell would report it."""
    if job.driver_exit_code is not None:
        code = int(job.driver_exit_code)
        return code if code >= 0 else 128 - code
    return {"SUCCEEDED": 0, "STOPPED": 143}.get(state_of(job), 1)


def persistent(
    call: Callable[[], T],
    *,
    patience_s: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """Result of a request, repeated while the connection to the job server is lost.

    Args:
        call: A request that may be repeated.
        patience_s: Time after which a lost connection is an error, seconds.
        sleep: Waits between two attempts.
        clock: Current time, seconds.

    Raises:
        ClusterError: If the server does not answer in time, or does not know the job.
    """
    began, wait_s = clock(), 1.0
    while True:
        try:
            return call()
        except (OSError, RuntimeError) as error:
            said = " ".join(str(error).split())
            if _UNKNOWN in said:
                raise ClusterError(f"the cluster does not know the job: {said}") from error
            if wait_s == 1.0 and patience_s:
                logger.warning("no connection to the job server, trying again: %s", said)
            if clock() - began >= patience_s:
                raise ClusterError(
                    f"no connection to the job server for {patience_s:.0f} s ({said}); the job "
                    "itself does not depend on it, so try again later"
                ) from error
        sleep(wait_s)
        wait_s = min(2 * wait_s, 15.0)


@contextmanager
def _in_one_line(what: str) -> Iterator[None]:
    """Errors of Ray's client, and of the HTTP client below it, as a `ClusterError`."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise ClusterError(
            f"{what}: {said}; check the address, and RAY_AUTH_MODE where the cluster has tokens"
        ) from error
