"""Connections and names of jobs; errors are one line with a remedy."""

from __future__ import annotations

import os

import pytest

from pipeline.errors import ClusterError
from pipeline.submission import client
from tests.factories.job_server import FakeServer


def test_without_an_address_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(client.ADDRESS_VARIABLE, raising=False)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(ClusterError, match="give --address"):
        client.connect(None)


def test_the_option_goes_before_the_variables_of_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []

    class Client:
        def __init__(self, address: str) -> None:
            found.append(os.environ[client.ADDRESS_VARIABLE])

    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", Client)
    monkeypatch.setenv(client.ADDRESS_VARIABLE, "http://elsewhere:1")
    client.connect("http://here:1")
    client.connect(None)
    assert found == ["http://here:1", "http://elsewhere:1"]
    assert os.environ[client.ADDRESS_VARIABLE] == "http://elsewhere:1"
    monkeypatch.delenv(client.ADDRESS_VARIABLE)
    monkeypatch.setenv("RAY_ADDRESS", "http://third:1")
    client.connect(None)
    assert found[-1] == "http://third:1"
    assert client.ADDRESS_VARIABLE not in os.environ


def test_a_server_that_does_not_answer_is_named() -> None:
    with pytest.raises(ClusterError, match=r"no job server answers at http://127\.0\.0\.1:9"):
        client.connect("http://127.0.0.1:9")


def test_a_job_is_found_by_id_or_as_the_newest_of_a_name() -> None:
    server = FakeServer()
    server.add("a-1", "a", start_time=1)
    server.add("a-2", "a", start_time=3)
    server.add("b-1", "b", start_time=2)
    server.jobs["driver"] = server.add("driver")
    server.jobs["driver"].submission_id = None  # type: ignore[assignment]  # not submitted
    assert client.find_job(server, "a").submission_id == "a-2"
    assert client.find_job(server, "a-1").submission_id == "a-1"
    assert [job.submission_id for job in client.submitted_jobs(server)] == ["a-2", "b-1", "a-1"]
    with pytest.raises(ClusterError, match=r"no job 'c'; the newest are: a, b$"):
        client.find_job(server, "c")


def test_a_name_in_use_is_refused_until_its_job_has_ended() -> None:
    server = FakeServer()
    job = server.add("a-1", "a")
    with pytest.raises(ClusterError, match=r"RUNNING as a-1; stop it with `audiocalm stop a`"):
        client.refuse_running(server, "a")
    client.refuse_running(server, "b")
    job.status = "STOPPED"
    client.refuse_running(server, "a")


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        ("SUCCEEDED", 0, 0),
        ("FAILED", 2, 2),
        ("FAILED", -9, 137),
        ("FAILED", None, 1),
        ("STOPPED", None, 143),
        ("SUCCEEDED", None, 0),
    ],
)
def test_the_exit_code_is_that_of_the_job(status: str, code: int | None, expected: int) -> None:
    job = FakeServer().add("a-1", status=status, driver_exit_code=code)
    assert client.exit_code(job) == expected


def test_lost_connections_are_retried_with_backoff_until_patience_ends() -> None:
    now, waits = [0.0], []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    def fail() -> None:
        raise ConnectionError("refused")

    with pytest.raises(ClusterError, match="for 60 s"):
        client.persistent(fail, patience_s=60, sleep=sleep, clock=lambda: now[0])
    assert waits == [1, 2, 4, 8, 15, 15, 15]
    server = FakeServer(failures=2)
    server.add("a-1")
    waits.clear()
    found = client.persistent(lambda: server.get_job_info("a-1"), patience_s=60, sleep=sleep)
    assert (found.submission_id, waits) == ("a-1", [1, 2])
