"""A local Ray that is slow to start; no Ray runs here."""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from pipeline import cluster
from pipeline.cluster import (
    SERVE_ENVIRONMENT,
    WORKER_ENVIRONMENT,
    kept_ray,
    local_environment,
    num_fitting,
    ray_cluster,
    require_resources,
)
from pipeline.errors import ClusterError, SettingsError


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], list[str]]:
    """`ray.init` fails with each of the given messages in turn, then succeeds; returns calls."""

    def arrange(failures: list[str]) -> list[str]:
        calls: list[str] = []

        def start(**_: object) -> None:
            calls.append("init")
            if len(calls) <= len(failures):
                raise Exception(failures[len(calls) - 1])  # as Ray does

        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        monkeypatch.setattr(ray, "is_initialized", lambda: False)
        monkeypatch.setattr(ray, "init", start)
        monkeypatch.setattr(ray, "shutdown", lambda: None)
        return calls

    return arrange


BUSY = "The current node timed out during startup. The GCS has become overloaded."


def test_ray_is_started_again_on_a_busy_machine(starts: Callable[[list[str]], list[str]]) -> None:
    calls = starts([BUSY, "Failed to connect to GCS. Please check `gcs_server.out`"])
    with ray_cluster():
        assert len(calls) == 3


@pytest.mark.parametrize(("failures", "message"), [([BUSY] * 6, "too busy"), (["no"], "no")])
def test_starting_ray_gives_up_in_the_end_and_at_once_for_another_reason(
    starts: Callable[[list[str]], list[str]], failures: list[str], message: str
) -> None:
    calls = starts(failures)
    with pytest.raises(Exception, match=message), ray_cluster():
        raise AssertionError
    assert len(calls) == len(failures)


@pytest.fixture
def spawn() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a process that waits, with words on its command line, once it runs."""
    with contextlib.ExitStack() as stack:

        def start(code: str, *words: str) -> subprocess.Popen[str]:
            command = [sys.executable, "-c", code, *words]
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


WAIT = "print(flush=True); input()"
WAIT_WITH_A_CHILD = (
    "import subprocess, sys; "
    f"child = subprocess.Popen([sys.executable, '-c', {WAIT!r}], stdin=subprocess.PIPE); "
    "print(child.pid, flush=True); child.wait()"
)


def test_a_start_that_fails_leaves_no_process_of_ray(
    monkeypatch: pytest.MonkeyPatch, spawn: Callable[..., subprocess.Popen[str]]
) -> None:
    started: list[psutil.Process] = []

    def start(**_: object) -> None:
        server = spawn(WAIT_WITH_A_CHILD, str(Path(ray.__file__).parent / "gcs_server"))
        assert server.stdout is not None
        worker = psutil.Process(int(server.stdout.readline()))
        other = spawn(WAIT)
        started.extend([psutil.Process(server.pid), worker, psutil.Process(other.pid)])
        raise Exception("no")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", start)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with pytest.raises(Exception, match=r"^no$"), ray_cluster():
        raise AssertionError
    server, worker, other = started
    assert not server.is_running()
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
    assert other.is_running()


@pytest.mark.parametrize("is_kept", [False, True])
def test_a_kept_ray_starts_once_and_ends_once(
    monkeypatch: pytest.MonkeyPatch, is_kept: bool
) -> None:
    calls: list[str] = []

    def start(**_: object) -> None:
        calls.append("init")
        monkeypatch.setattr(ray, "is_initialized", lambda: True)

    def stop() -> None:
        calls.append("shutdown")
        monkeypatch.setattr(ray, "is_initialized", lambda: False)

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", start)
    monkeypatch.setattr(ray, "shutdown", stop)
    with kept_ray() if is_kept else contextlib.nullcontext():
        for _ in range(2):
            with ray_cluster():
                assert calls[-1] == "init"
    assert calls == ["init", "shutdown"] * (1 if is_kept else 2)


GIB = 2**30


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The connected Ray has nodes with the given resources."""

    def arrange(
        *resources: Mapping[str, float], groups: tuple[str, ...] = (), status: object = None
    ) -> None:
        labels = [{"ray.io/node-group": name} for name in groups] or [{}] * len(resources)
        there: list[dict[str, Any]] = [
            {"Alive": True, "Resources": dict(has), "Labels": label}
            for has, label in zip(resources, labels, strict=True)
        ]
        gone = {"Alive": False, "Resources": {"CPU": 512.0, "GPU": 64.0}, "Labels": {}}
        monkeypatch.setattr(ray, "nodes", lambda: [*there, gone])
        raw = None if status is None else json.dumps(status).encode()
        monkeypatch.setattr(cluster, "_internal_kv_get", lambda _: raw)

    return arrange


@pytest.mark.parametrize(
    ("per_worker", "num_workers", "said"),
    [
        ({"CPU": 64}, 1, "a worker with 64 CPU; Ray has 2 nodes with 12 CPU together, at most 8"),
        ({"CPU": 5}, 2, "2 workers with 5 CPU each; Ray has 2 nodes with 12 CPU together"),
        ({"CPU": 1, "GPU": 1}, 1, "with 1 CPU, 1 GPU; Ray has 2 nodes with 12 CPU, 0 GPU"),
        ({"memory": 64 * GIB}, 1, "64 GiB memory; Ray has 2 nodes with 48 GiB memory together"),
        ({"fpga": 0.5}, 1, "0.5 fpga; Ray has 2 nodes with 0 fpga"),
    ],
)
def test_resources_that_the_cluster_lacks_are_refused_with_the_remedy(
    nodes: Callable[..., None], per_worker: dict[str, float], num_workers: int, said: str
) -> None:
    nodes({"CPU": 8.0, "memory": 16 * GIB}, {"CPU": 4.0, "memory": 32 * GIB})
    with pytest.raises(SettingsError) as caught:
        require_resources("ingest", per_worker, num_workers, remedy="lower resources.cpus")
    assert said in str(caught.value)
    assert str(caught.value).startswith("ingest asks for ")
    assert str(caught.value).endswith("lower resources.cpus")


@pytest.mark.parametrize(
    ("per_worker", "num_workers"),
    [({"CPU": 4}, 3), ({"CPU": 0.1}, 120), ({"GPU": 0.3}, 3), ({"GPU": 0, "memory": 0}, 99)],
)
def test_workers_that_fit_the_cluster_are_accepted(
    nodes: Callable[..., None], per_worker: dict[str, float], num_workers: int
) -> None:
    nodes({"CPU": 8.0, "GPU": 1.0}, {"CPU": 4.0})
    require_resources("encode", per_worker, num_workers, remedy="")


@pytest.mark.parametrize(
    ("per_worker", "expected"),
    [({"CPU": 3}, 3), ({"CPU": 1, "GPU": 0.5}, 2), ({"memory": 1}, 0), ({"CPU": 0}, None)],
)
def test_workers_that_fit_are_counted_node_by_node(
    nodes: Callable[..., None], per_worker: dict[str, float], expected: int | None
) -> None:
    nodes({"CPU": 8.0, "GPU": 1.0}, {"CPU": 4.0})
    assert num_fitting(per_worker) == expected


@pytest.mark.parametrize(
    "sign",
    [
        {"groups": ("headgroup",)},
        {"status": {"autoscaler_report": {"active_nodes": {"ray.head.default": 1}}}},
    ],
)
def test_an_autoscaler_may_still_add_nodes_and_the_log_says_what_is_waited_for(
    nodes: Callable[..., None], caplog: pytest.LogCaptureFixture, sign: dict[str, Any]
) -> None:
    nodes({"CPU": 1.0}, **sign)
    with caplog.at_level(logging.WARNING, logger="pipeline.cluster"):
        require_resources("encode", {"GPU": 1}, remedy="set resources.gpus=0")
    assert "1 GPU" in caplog.text
    assert "waiting for the autoscaler" in caplog.text


@pytest.mark.parametrize(
    "status",
    [{"autoscaler_report": {"active_nodes": {"node_73b2": 1}}}, {"autoscaler_report": None}],
)
def test_a_cluster_of_fixed_nodes_has_no_autoscaler(
    nodes: Callable[..., None], status: object
) -> None:
    nodes({"CPU": 1.0}, status=status)
    with pytest.raises(SettingsError, match=r"set resources\.gpus=0"):
        require_resources("encode", {"GPU": 1}, remedy="set resources.gpus=0")


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (
            RuntimeError(
                "Version mismatch: The cluster was started with:\n    Ray: 2.40.0\n"
                "    Python: 3.11.7\nThis process on node was started with:\n    Ray: 2.60.0\n"
            ),
            "install the cluster's versions here",
        ),
        (ConnectionError("Could not find any running Ray\ninstance"), "RAY_ADDRESS is right"),
    ],
)
def test_a_cluster_that_cannot_be_used_is_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception, remedy: str
) -> None:
    def refuse(**_: object) -> None:
        raise error

    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(ClusterError) as caught, ray_cluster():
        raise AssertionError
    assert remedy in str(caught.value)
    assert "10.0.0.1:6379" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_serve_is_patient_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, other = SERVE_ENVIRONMENT
    monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "7")
    environment = local_environment()
    assert environment[name] == "7"
    assert environment[other] == SERVE_ENVIRONMENT[other]


@pytest.mark.parametrize("taken", [{}, {"OMP_NUM_THREADS": "4"}, None])
def test_variables_of_the_job_are_not_set_again(
    monkeypatch: pytest.MonkeyPatch, taken: dict[str, str] | None
) -> None:
    given: dict[str, dict[str, str]] = {}
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    job = {"runtime_env": {"env_vars": taken} if taken is not None else {}, "metadata": {}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda runtime_env, **_: given.update(runtime_env))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with ray_cluster():
        assert set(WORKER_ENVIRONMENT) - set(given["env_vars"]) == set(taken or {})
        assert set(SERVE_ENVIRONMENT) <= set(given["env_vars"])


def test_the_constants_of_serve_are_those_that_are_set() -> None:
    from ray.serve._private import constants

    source = inspect.getsource(constants)
    assert all(f'"{name}"' in source for name in SERVE_ENVIRONMENT)


def test_the_address_of_a_job_server_is_refused_with_the_command_that_takes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://head:8265")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ClusterError, match="audiocalm submit"), ray_cluster():
        raise AssertionError
