"""Connection to Ray: the cluster that a job was submitted to, or a local one for its duration."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

import psutil
import ray
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR
from ray.experimental.internal_kv import _internal_kv_get

from pipeline.errors import ClusterError, SettingsError
from pipeline.threads import ONE_THREAD

logger = logging.getLogger(__name__)

A = TypeVar("A")
R = TypeVar("R")

_STARTS = 6
_END_S = 10.0
_NOT_IN_TIME = ("timed out during startup", "Failed to connect to GCS")
"""Parts of Ray's error message when one of its processes was too slow to start."""

WORKER_ENVIRONMENT = {
    **ONE_THREAD,
    "TOKENIZERS_PARALLELISM": "false",
    # Jobs address files by absolute path, and a changed directory surprises relative ones.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
"""Environment of every worker process."""

SERVE_ENVIRONMENT = {
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
}
"""Timeouts of Ray Serve's controller, which inherits the environment of the job that starts Serve.
By default it kills a proxy that is not up after 5 s, which is too short on a busy machine. Values
that the driver's own environment sets take precedence."""


_is_kept = ContextVar("is_kept", default=False)


def this_node() -> str:
    """Id of the Ray node that this process works on; empty outside Ray."""
    return ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""


def is_node_lost(node: str) -> bool:
    """Whether a node has left the cluster: it was preempted, scaled down, or failed.

    Args:
        node: What `this_node` gave there; an empty id is no node that could be lost.
    """
    if not node or not ray.is_initialized():
        return False
    return not any(known["NodeID"] == node and known["Alive"] for known in ray.nodes())


@contextlib.contextmanager
def kept_ray() -> Iterator[None]:
    """Keep a Ray that `ray_cluster` starts inside this block for its next use in the block.

    The block itself starts nothing.
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

    Raises:
        ClusterError: If the cluster cannot be reached, or runs another version of Ray or Python, or
            if a local instance does not start.
    """
    if ray.is_initialized():
        yield
        return
    if os.environ.get("RAY_ADDRESS"):
        _connect(os.environ["RAY_ADDRESS"])
    else:
        _start_local(num_cpus)
    try:
        yield
    finally:
        if not _is_kept.get():
            ray.shutdown()


def in_tasks(function: Callable[[A], R], arguments: Sequence[A]) -> list[R]:
    """Results of a function for each argument: by tasks on a cluster, else in this process.

    A cluster is one that is connected already, or that `RAY_ADDRESS` names.

    Args:
        function: Safe to call again where a node was lost.
        arguments: One of each task.

    Raises:
        Exception: The first exception of the function, as it was raised.
    """
    if not (ray.is_initialized() or os.environ.get("RAY_ADDRESS")):
        return [function(argument) for argument in arguments]
    with ray_cluster():
        task = ray.remote(num_cpus=1)(function)
        try:
            results: list[R] = ray.get([task.remote(argument) for argument in arguments])
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
    return results


def require_resources(
    job: str, per_worker: Mapping[str, float], num_workers: int = 1, *, remedy: str
) -> None:
    """Refuse a group of workers that the connected Ray can never hold.

    A worker lies on one node, so its resources must fit there; what other jobs occupy at the
    moment is not subtracted. A cluster with an autoscaler may still grow, so there the shortage is
    only logged.

    Args:
        job: What asks, for the message: `ingest`, `training`, `serve`.
        per_worker: Ray's resource names to amounts of one worker: `CPU`, `GPU`, `memory` in bytes,
            custom ones. Zeros are ignored.
        num_workers: Workers that must run at the same time.
        remedy: What to change, ending the message.

    Raises:
        SettingsError: With what was asked for, what the cluster has, and the remedy.
    """
    fitting = num_fitting(per_worker)
    if fitting is None or fitting >= num_workers:
        return
    asked = {name: amount for name, amount in per_worker.items() if amount}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    total = {name: sum(node.get(name, 0) for node in nodes) for name in asked}
    largest = {name: max((node.get(name, 0) for node in nodes), default=0) for name in asked}
    asked_for = f"a worker with {_spoken(asked)}"
    if num_workers > 1:
        asked_for = f"{num_workers} workers with {_spoken(asked)} each"
    has = f"{len(nodes)} node{'s' * (len(nodes) != 1)} with {_spoken(total)} together"
    if len(nodes) > 1:
        has += f", at most {_spoken(largest)} on one"
    text = f"{job} asks for {asked_for}; Ray has {has}; {remedy}"
    if not _may_grow():
        raise SettingsError(text)
    logger.warning("%s; waiting for the autoscaler to add nodes", text)


def num_fitting(per_worker: Mapping[str, float]) -> int | None:
    """Workers that the nodes of the connected Ray hold, if no other job were there.

    Args:
        per_worker: As in `require_resources`.

    Returns:
        None if a worker asks for nothing.
    """
    asked = {name: amount for name, amount in per_worker.items() if amount}
    nodes = (node["Resources"] for node in ray.nodes() if node["Alive"])
    return sum(_fitting_on(node, asked) for node in nodes) if asked else None


def _fitting_on(node: Mapping[str, float], per_worker: Mapping[str, float]) -> int:
    return min(math.floor(node.get(name, 0) / amount + 1e-9) for name, amount in per_worker.items())


def _spoken(amounts: Mapping[str, float]) -> str:
    return ", ".join(
        f"{amount / 2**30:.3g} GiB memory" if name == "memory" else f"{amount:g} {name}"
        for name, amount in amounts.items()
    )


def _may_grow() -> bool:
    """Whether an autoscaler manages the cluster: its nodes then belong to named groups.

    Without one, Ray's own status calls each node after its id, and nodes have no group.
    """
    if any("ray.io/node-group" in (node.get("Labels") or {}) for node in ray.nodes()):
        return True
    status = _internal_kv_get(DEBUG_AUTOSCALING_STATUS)
    report = json.loads(status).get("autoscaler_report") if status else None
    return any(not kind.startswith("node_") for kind in (report or {}).get("active_nodes") or {})


def _connect(address: str) -> None:
    """Connect to a cluster; an error of Ray is raised again as one line."""
    if address.startswith(("http://", "https://")):
        raise ClusterError(
            f"RAY_ADDRESS is {address}, which is a job server and no address of a cluster; run "
            "`audiocalm submit COMMAND --address ...`, or unset RAY_ADDRESS to run here"
        )
    try:
        ray.init(
            runtime_env={"env_vars": _without_the_jobs(_with_patience(WORKER_ENVIRONMENT))},
            logging_level=logging.WARNING,
        )
    except (RuntimeError, ConnectionError, ValueError) as error:
        said = " ".join(str(error).split())
        remedy = "check that the cluster runs and RAY_ADDRESS is right"
        if "ersion mismatch" in said:
            remedy = "install the cluster's versions here, or restart the cluster with these"
        raise ClusterError(f"no connection to Ray at {address}: {said}; {remedy}") from error


def _start_local(num_cpus: int | None) -> None:
    """Start Ray here; retry on a machine too busy to do so within the 30 s that Ray allows."""
    # Ray reports usage statistics by default; here only users who ask for it take part.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    for attempt in range(1, _STARTS + 1):
        try:
            with no_ray_left_behind():
                ray.init(
                    address="local",
                    num_cpus=num_cpus,
                    include_dashboard=False,
                    runtime_env={"env_vars": local_environment()},
                    logging_level=logging.ERROR,
                )
            return
        except Exception as error:  # Ray raises `Exception` itself when a process is slow
            if not any(said in str(error) for said in _NOT_IN_TIME):
                raise
            if attempt == _STARTS:
                raise ClusterError(
                    f"Ray did not start in {_STARTS} attempts, since this machine is too busy; end "
                    "other programs, or wait"
                ) from error
            logger.warning("Ray did not start in time, attempt %d of %d", attempt, _STARTS)


@contextlib.contextmanager
def no_ray_left_behind() -> Iterator[None]:
    """End the processes of a Ray whose start fails inside this block.

    `ray.shutdown` ends only an instance that has started. The servers of one that has not would
    run until this process ends, and slow down the next attempt.
    """
    this = psutil.Process()
    before = set(this.children())
    try:
        yield
    except BaseException:  # raised again
        ray.shutdown()
        _kill_ray(set(this.children()) - before)
        raise


def _kill_ray(children: set[psutil.Process]) -> None:
    """Kill those of the processes that run a program of Ray, and all their descendants."""
    package = str(Path(ray.__file__).parent)
    doomed = []
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            if any(package in argument for argument in child.cmdline()):
                doomed += [child, *child.children(recursive=True)]
    for process in doomed:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(doomed, timeout=_END_S)


def local_environment() -> dict[str, str]:
    """`WORKER_ENVIRONMENT`, and the CPU accelerator for DeepSpeed where no GPU is visible.

    On a cluster the driver's node says nothing of the workers', and DeepSpeed looks by itself.
    """
    import torch

    accelerator = {} if torch.cuda.is_available() else {"DS_ACCELERATOR": "cpu"}
    return _with_patience(WORKER_ENVIRONMENT | accelerator)


def _with_patience(environment: Mapping[str, str]) -> dict[str, str]:
    chosen = {name: os.environ.get(name, value) for name, value in SERVE_ENVIRONMENT.items()}
    return {**environment, **chosen}


def _without_the_jobs(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that the environment of the submitted job does not set: Ray refuses both."""
    job = json.loads(os.environ.get(RAY_JOB_CONFIG_JSON_ENV_VAR) or "{}")
    taken = (job.get("runtime_env") or {}).get("env_vars") or {}
    return {name: value for name, value in environment.items() if name not in taken}
