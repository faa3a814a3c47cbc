"""A local Ray that is slow to start; no Ray runs here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
import ray

from pipeline.cluster import kept_ray, ray_cluster


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


def test_a_busy_machine_is_asked_again(starts: Callable[[list[str]], list[str]]) -> None:
    calls = starts([BUSY, "Failed to connect to GCS. Please check `gcs_server.out`"])
    with ray_cluster():
        assert len(calls) == 3


@pytest.mark.parametrize(("failures", "message"), [([BUSY] * 3, "timed out"), (["no"], "no")])
def test_it_gives_up_in_the_end_and_at_once_for_another_reason(
    starts: Callable[[list[str]], list[str]], failures: list[str], message: str
) -> None:
    calls = starts(failures)
    with pytest.raises(Exception, match=message), ray_cluster():
        raise AssertionError
    assert len(calls) == len(failures)


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
