"""A job server without Ray: jobs by id, logs that can break off, and what was submitted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.submission.client import COMMAND, NAME

TRAIN_LOG = """Running entrypoint for job x: exec python -m jobs.cli train
(RayTrainWorker pid=7) 09:00:00 INFO pipeline.training.loop: step 10 of 100: loss 0.5000, norm 1
(RayTrainWorker pid=7) 09:00:20 INFO pipeline.training.loop: step 20 of 100: loss 0.4000, norm 1
(RayTrainWorker pid=7) 09:00:21 INFO pipeline.training.loop: saved the checkpoint of step 20
(RayTrainWorker pid=7) 09:00:40 WARNING pipeline.training.loop: a disk is nearly full
(RayTrainWorker pid=7) 09:00:40 INFO pipeline.training.loop: step 30 of 100: loss 0.3000, norm 1
finished at step 100 of 100
"""


@dataclass
class Job:
    """What is read of Ray's `JobDetails`."""

    submission_id: str
    status: str = "RUNNING"
    metadata: dict[str, str] = field(default_factory=dict)
    entrypoint: str = ""
    driver_exit_code: int | None = None
    start_time: int | None = 1_000
    end_time: int | None = None


@dataclass
class FakeServer:
    """A job server whose jobs run as long as a test wants.

    Attributes:
        jobs: Jobs by id.
        log: Log of every job.
        cuts: For each connection to a log the characters after which it breaks off; None does not.
        failures: Number of requests that fail before the server answers again.
        polls_to_end: Requests for a job's state until it has ended; None never ends it.
        submitted: Options of every submission.
        packed: Files of the last submission.
    """

    jobs: dict[str, Job] = field(default_factory=dict)
    log: str = TRAIN_LOG
    cuts: list[int | None] = field(default_factory=list)
    failures: int = 0
    polls_to_end: int | None = None
    end: tuple[str, int | None] = ("SUCCEEDED", 0)
    submitted: list[dict[str, Any]] = field(default_factory=list)
    packed: set[str] = field(default_factory=set)
    stopped: list[str] = field(default_factory=list)
    num_tails: int = 0

    def add(self, job_id: str, name: str = "x", **fields: Any) -> Job:
        """Have a job."""
        self.jobs[job_id] = Job(job_id, metadata={NAME: name, COMMAND: "train"}, **fields)
        return self.jobs[job_id]

    def submit_job(self, *, entrypoint: str, **options: Any) -> str:
        folder = Path(options["runtime_env"]["working_dir"])
        self.packed = {
            str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
        }
        self.submitted.append({"entrypoint": entrypoint, **options})
        job_id: str = options["submission_id"]
        self.jobs[job_id] = Job(job_id, metadata=options["metadata"], entrypoint=entrypoint)
        return job_id

    def get_job_info(self, job_id: str) -> Job:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("connection refused")
        if job_id not in self.jobs:
            raise RuntimeError(f"Request failed with status code 404: Job {job_id} does not exist.")
        job = self.jobs[job_id]
        if self.polls_to_end is not None:
            self.polls_to_end -= 1
            if self.polls_to_end <= 0:
                self._end(job)
        return job

    def get_job_logs(self, job_id: str) -> str:
        return self.log

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        self.num_tails += 1
        cut = self.cuts.pop(0) if self.cuts else None
        for start in range(0, len(self.log if cut is None else self.log[:cut]), 7):
            yield self.log[start : min(start + 7, len(self.log) if cut is None else cut)]
        if cut is not None:
            raise RuntimeError("WebSocket connection closed unexpectedly with close code 1006")
        self._end(self.jobs[job_id])

    def stop_job(self, job_id: str) -> bool:
        self.stopped.append(job_id)
        return True

    def list_jobs(self) -> list[Any]:
        return list(self.jobs.values())

    def _end(self, job: Job) -> None:
        job.status, job.driver_exit_code = self.end
        job.end_time = 61_000
