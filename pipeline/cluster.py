"""Where Ray comes from: the cluster a job was submitted to, or a local one for its duration."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from contextvars import ContextVar

import ray

logger = logging.getLogger(__name__)

_STARTS = 3
_NOT_IN_TIME = ("timed out during startup", "Failed to connect to GCS")
"""What Ray says if one of its processes was too slow to start."""

WORKER_ENVIRONMENT = {
    # One process per core: a BLAS or OpenMP pool in each would oversubscribe the node.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # Jobs address files by absolute path, and a changed directory surprises relative ones.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
"""Environment of every worker process."""


_is_kept = ContextVar("is_kept", default=False)


@contextlib.contextmanager
def kept_ray() -> Iterator[None]:
    """What `ray_cluster` starts inside this block stays for its next use, and ends with the block.

    Nothing is started where nothing asks for it.
    """
    was_there = ray.is_initialized()
    token = _is_kept.set(True)
    try:
        yield
    finally:
        _is_kept.reset(token)
        if not was_there and not _is_kept.get():
            ray.shutdown()


@contextlib.contextmanager
def ray_cluster(num_cpus: int | None = None) -> Iterator[None]:
    """Ray for the duration of a block.

    An instance that is already connected is used and left running; `RAY_ADDRESS` in the
    environment (set for submitted jobs) is connected to; otherwise a local instance starts and
    ends with the block, or with the `kept_ray` around it.

    Args:
        num_cpus: Logical CPUs of a local instance; None takes the machine's cores.
    """
    if ray.is_initialized():
        yield
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(runtime_env={"env_vars": dict(WORKER_ENVIRONMENT)}, logging_level=logging.WARNING)
    else:
        _start_local(num_cpus)
    try:
        yield
    finally:
        if not _is_kept.get():
            ray.shutdown()


def _start_local(num_cpus: int | None) -> None:
    """Start Ray here; a machine too busy to do so in the 30 s that Ray fixes is asked again."""
    # Who runs this tells nobody, unless they say so.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    for attempt in range(1, _STARTS + 1):
        try:
            ray.init(
                address="local",
                num_cpus=num_cpus,
                include_dashboard=False,
                runtime_env={"env_vars": local_environment()},
                logging_level=logging.ERROR,
            )
            return
        except Exception as error:  # Ray raises nothing narrower
            is_slow = any(said in str(error) for said in _NOT_IN_TIME)
            if not is_slow or attempt == _STARTS:
                raise
            logger.warning("Ray did not start in time, attempt %d of %d", attempt, _STARTS)
            ray.shutdown()


def local_environment() -> dict[str, str]:
    """`WORKER_ENVIRONMENT`, and the CPU accelerator for DeepSpeed where no GPU is visible.

    On a cluster the driver's node says nothing of the workers', and DeepSpeed looks by itself.
    """
    import torch

    accelerator = {} if torch.cuda.is_available() else {"DS_ACCELERATOR": "cpu"}
    return WORKER_ENVIRONMENT | accelerator
