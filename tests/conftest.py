"""Fixtures of the whole suite: one thread, seeded, and one Ray instance for all `ray` tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")
# By default Ray's workers yield to everything else: on a busy machine they would not get far.
os.environ.setdefault("RAY_worker_niceness", "0")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """The session's only Ray instance, with more logical CPUs than cores so that groups fit."""
    from pipeline.cluster import ray_cluster

    with ray_cluster(num_cpus=4):
        yield
