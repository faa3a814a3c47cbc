"""A Ray head of its own with a job server, as `ray start --head` gives one."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from pipeline.cluster import no_ray_left_behind
from tests.factories.http import free_port

_STARTS = 4
_PORTS = (
    "dashboard_port",
    "dashboard_agent_listen_port",
    "metrics_agent_port",
    "metrics_export_port",
    "runtime_env_agent_port",
)
"""Ports that Ray would choose: it dies if its agents have not chosen theirs within 15 s."""


@contextmanager
def ray_head(num_cpus: int) -> Iterator[str]:
    """Start a head; gives the address of its job server, and ends every process of it."""
    with pytest.MonkeyPatch.context() as environment:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment.setenv("PATH", path)  # of the python of jobs
        for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
            environment.delenv(name, raising=False)
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        handler = signal.getsignal(signal.SIGTERM)  # a head node installs its own
        cluster = _started(num_cpus)
        try:
            yield f"http://{cluster.webui_url}"
        finally:
            cluster.shutdown()
            signal.signal(signal.SIGTERM, handler)


def _started(num_cpus: int) -> Cluster:
    """A cluster of one node; a machine too busy for the 30 s that Ray allows is tried again."""
    for attempt in range(1, _STARTS + 1):
        cluster = Cluster()
        try:
            with no_ray_left_behind():
                cluster.add_node(
                    num_cpus=num_cpus,
                    include_dashboard=True,
                    object_store_memory=80 * 2**20,
                    **{name: free_port() for name in _PORTS},
                )
            return cluster
        except Exception:  # Ray has no class of its own for a slow start; the last one is raised
            if attempt == _STARTS:
                raise
    raise AssertionError
