"""The place of a worker in its group, and what the workers of a group exchange."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.storage import Folder


@dataclass(frozen=True)
class Place:
    """Rank and device of a worker, and its reports; a worker alone needs no process group.

    Attributes:
        rank: This worker's rank.
        world_size: Number of workers.
        device: Device of this worker.
        report: Function that every worker calls with the metrics and directory of a checkpoint.
        is_preempted: Whether an eviction is announced, the same on all workers, which call this
            together.
    """

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    report: Callable[[dict[str, Any], Folder], None] = lambda metrics, folder: None
    is_preempted: Callable[[], bool] = lambda: False

    @property
    def is_first(self) -> bool:
        """Whether this worker writes and logs what is the same on all."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Sum over all workers, the same bits on each, on this worker's device."""
        total = values.to(self.device, copy=True)
        if self.world_size > 1:
            dist.all_reduce(total)
        return total

    def gather(self, value: Any) -> list[Any]:
        """The values of all workers, by rank."""
        found: list[Any] = [value] * self.world_size
        if self.world_size > 1:
            dist.all_gather_object(found, value)
        return found

    def from_first(self, value: Any) -> Any:
        """The value of the first worker; those of the others are ignored."""
        found = [value]
        if self.world_size > 1:
            dist.broadcast_object_list(found, src=0)
        return found[0]

    def wait(self) -> None:
        """Wait for all workers."""
        if self.world_size > 1:
            dist.barrier()
