"""Settings of how a stage is run, which change nothing in what it writes."""

from __future__ import annotations

from pydantic import Field, model_validator

from pipeline.data.rejects import Reason
from pipeline.settings import Settings


class Resources(Settings):
    """What a stage may use."""

    workers: int = Field(default=2, ge=0)
    """Worker processes at most; 0 works inside the calling process, without Ray. As many start as
    the nodes have room for. Others follow when nodes are added, and a lost node takes its own with
    it, so on a cluster that grows this may be far more than there is room for at first."""
    min_workers: int = Field(default=1, ge=1)
    """Worker processes that are asked for from the start, room or not: an autoscaler adds nodes
    for these at once, and for more only when it sees that they are busy."""
    cpus: float = Field(default=1.0, ge=0)
    """Logical CPUs of one worker."""
    gpus: float = Field(default=0.0, ge=0)
    """GPUs of one worker; a fraction shares one."""
    memory_bytes: int | None = None
    """Memory reserved for one worker; None leaves it unaccounted."""
    max_attempts: int = Field(default=3, ge=1)
    """Attempts at a unit before it fails the job: after faults of storage, network or GPU, and
    after deaths of its worker without a clip to blame."""
    no_progress_timeout_s: float = Field(default=7200.0, gt=0)
    """The job fails if for this long no unit ends and no worker gets on within one, seconds."""
    hang_timeout_s: float = Field(default=1800.0, gt=0)
    """A worker process that does not get on within its unit for this long counts as hung and is
    killed, seconds; the clip is found and rejected like one that crashes the decoder."""
    retry_rejects: tuple[Reason, ...] = ()
    """Units with clips that were rejected for one of these reasons are processed again."""
    dry_run: bool = False
    """Say what would be done and how long it would take; write nothing."""

    @model_validator(mode="after")
    def _check_workers(self) -> Resources:
        if self.workers and self.min_workers > self.workers:
            raise ValueError(
                f"resources.min_workers is {self.min_workers} and resources.workers, the most "
                f"there may be, {self.workers}; lower the first or raise the second"
            )
        return self
