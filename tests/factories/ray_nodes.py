"""A Ray cluster of its own on this machine: a head with a job server, and worker nodes to lose."""

from __future__ import annotations

import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
from ray._private.ray_constants import PROCESS_TYPE_RAYLET
from ray.cluster_utils import Cluster

from pipeline.cluster import SERVE_ENVIRONMENT, no_ray_left_behind
from tests.factories.http import free_port

R = TypeVar("R")

_STARTS = 8
_PORTS = (
    "dashboard_agent_listen_port",
    "metrics_agent_port",
    "metrics_export_port",
    "runtime_env_agent_port",
)
"""Ports that Ray would choose: it dies if its agents have not chosen theirs within 15 s."""
_WAIT_S = 600.0


@dataclass(frozen=True)
class RayNodes:
    """A running cluster; every node is a raylet with resources of its own.

    Attributes:
        cluster: The nodes, as Ray's own tests hold them.
    """

    cluster: Cluster

    @property
    def url(self) -> str:
        """Address of the job server."""
        return f"http://{self.cluster.webui_url}"

    def add(self, **resources: float) -> None:
        """Start a worker node.

        Args:
            resources: `num_cpus`, `num_gpus`; GPUs need not exist.
        """

        def start() -> None:
            before = set(self.cluster.worker_nodes)
            try:
                _add(self.cluster, **resources)
            except BaseException:  # raised again
                for node in self.cluster.worker_nodes - before:
                    self.cluster.remove_node(node, allow_graceful=False)
                raise

        _repeated(start)

    def kill_one_with(self, title: str) -> None:
        """Wait until a process of a worker node has a title, and kill all processes of the node.

        Args:
            title: Part of the title that Ray gives to the process of an actor.
        """
        deadline = time.monotonic() + _WAIT_S
        while not (found := self._nodes_with(title)):
            assert time.monotonic() < deadline, f"no worker node runs {title!r}"
            time.sleep(0.05)
        self._kill(found[0])

    def _nodes_with(self, title: str) -> list[Any]:
        nodes = sorted(self.cluster.worker_nodes, key=lambda node: node.unique_id)
        return [node for node in nodes if any(title in one for one in map(_title, _below(node)))]

    def _kill(self, node: Any) -> None:
        """End a node as a power failure would: no process of it does anything any more."""
        doomed = [_raylet(node), *_below(node)]
        for process in doomed:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(doomed[1:], timeout=_WAIT_S)
        self.cluster.remove_node(node, allow_graceful=False)


@contextmanager
def ray_nodes(num_cpus: int) -> Iterator[RayNodes]:
    """Start a head with a job server; every process of the cluster ends with the block.

    Args:
        num_cpus: Logical CPUs of the head.
    """
    with pytest.MonkeyPatch.context() as environment:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment.setenv("PATH", path)  # of the python of jobs
        for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
            environment.delenv(name, raising=False)
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        for name, value in SERVE_ENVIRONMENT.items():  # of a Serve that the job server starts
            environment.setenv(name, value)
        handler = signal.getsignal(signal.SIGTERM)  # a head node installs its own
        nodes = RayNodes(_started(num_cpus))
        try:
            yield nodes
        finally:
            nodes.cluster.shutdown()
            signal.signal(signal.SIGTERM, handler)


def _started(num_cpus: int) -> Cluster:
    """A cluster of one node."""

    def start() -> Cluster:
        cluster = Cluster()
        with no_ray_left_behind():
            _add(cluster, num_cpus=num_cpus, include_dashboard=True, dashboard_port=free_port())
        return cluster

    return _repeated(start)


def _add(cluster: Cluster, **options: Any) -> None:
    cluster.add_node(
        object_store_memory=80 * 2**20,
        # Nodes of one machine share a session's folder, and each unpacks the code of jobs anew.
        runtime_env_dir_name=f"runtime_resources-{uuid.uuid4().hex[:8]}",
        **{name: free_port() for name in _PORTS},
        **options,
    )


def _repeated(start: Callable[[], R]) -> R:
    """A start of Ray, repeated: on a busy machine its processes miss the 15 to 60 s allowed."""
    for attempt in range(1, _STARTS + 1):
        try:
            return start()
        except Exception:  # Ray has no class of its own for a slow start; the last one is raised
            if attempt == _STARTS:
                raise
    raise AssertionError


def _raylet(node: Any) -> psutil.Process:
    return psutil.Process(node.all_processes[PROCESS_TYPE_RAYLET][0].process.pid)


def _below(node: Any) -> list[psutil.Process]:
    """The processes that the raylet of a node has started: workers and agents."""
    return _raylet(node).children(recursive=True)


def _title(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess, IndexError):
        return process.cmdline()[0]
    return ""
