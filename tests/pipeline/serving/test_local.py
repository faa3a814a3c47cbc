"""Who else uses Ray Serve is left alone; over a Serve that only takes notes, without Ray."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from model.bundle.bundle import BundleError
from pipeline.errors import SettingsError
from pipeline.serving import local
from pipeline.serving.local import NotDeployedError, deployed
from pipeline.serving.settings import ServeSettings
from tests.factories.http import free_port

DEPLOY_FAILED = "Deploying application a failed: Failed to update the deployments ['Sampler']."
REPLICA_FAILED = """The deployment failed to start 3 times in a row. See controller logs. Error:
ray::ServeReplica:a:Sampler.initialize_and_get_metadata()
  File "replica.py", line 7, in __init__
model.bundle.BundleError: model.safetensors was altered
"""


class FakeServe:
    """Takes notes; `listens` on an address if it runs already, with an application `other`."""

    def __init__(self, listens: tuple[str | None, int] | None = None) -> None:
        self.listens = listens
        self.calls: list[str] = []
        self.applications: dict[str, object] = {"other": object()}
        self.failure: Exception | None = None
        self.starting: list[str] = []
        """What a proxy is, each time it is asked, after a start that took too long."""

    def client(self, *, raise_if_no_controller_running: bool) -> SimpleNamespace | None:
        assert not raise_if_no_controller_running
        if self.listens is None:
            return None
        host, port = self.listens
        return SimpleNamespace(http_config=SimpleNamespace(host=host, port=port))

    def status(self) -> SimpleNamespace:
        proxy = self.starting.pop(0) if self.starting else "HEALTHY"
        return SimpleNamespace(applications=self.applications, proxies={"node": proxy})

    def start(self, http_options: dict[str, object]) -> None:
        self.calls.append("start")
        if self.starting:
            raise TimeoutError("HTTP proxies not available after 60s.")

    def run(self, application: object, *, name: str, route_prefix: str) -> None:
        self.calls.append(f"run {name}")
        if self.failure:
            sampler = SimpleNamespace(status="DEPLOY_FAILED", message=REPLICA_FAILED)
            ingress = SimpleNamespace(status="HEALTHY", message="is well")
            deployments = {"Sampler": sampler, "Ingress": ingress}
            self.applications[name] = SimpleNamespace(deployments=deployments)
            raise self.failure

    def delete(self, name: str) -> None:
        self.calls.append(f"delete {name}")

    def shutdown(self) -> None:
        self.calls.append("shutdown")


def install(monkeypatch: pytest.MonkeyPatch, fake: FakeServe) -> FakeServe:
    monkeypatch.setattr(local, "serve", fake)
    monkeypatch.setattr(local, "_get_global_client", fake.client)
    node = {"Alive": True, "Resources": {"CPU": 2.0}, "Labels": {}}
    monkeypatch.setattr(ray, "nodes", lambda: [node])
    monkeypatch.setattr("pipeline.cluster._internal_kv_get", lambda key: None)
    return fake


@pytest.fixture
def settings(tmp_path: Path) -> ServeSettings:
    (tmp_path / "bundle.json").write_text("{}")
    return ServeSettings(bundle=str(tmp_path), port=free_port(), gpus_per_replica=0)


def test_a_serve_of_its_own_ends_with_the_block(
    settings: ServeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = install(monkeypatch, FakeServe())
    with deployed(settings, "a") as url:
        assert url == f"http://127.0.0.1:{settings.port}"
    assert fake.calls == ["start", "run a", "shutdown"]


def test_a_shared_serve_loses_this_application_alone(
    settings: ServeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as proxy:  # its port is taken, by the Serve that is joined
        proxy.bind((settings.host, settings.port))
        proxy.listen()
        fake = install(monkeypatch, FakeServe((settings.host, settings.port)))
        with deployed(settings, "a"):
            assert fake.calls[-1] == "run a"
    assert fake.calls[-1] == "delete a"
    assert "shutdown" not in fake.calls


@pytest.mark.parametrize(
    ("listens", "name", "message"),
    [
        (("127.0.0.1", 1), "a", r"listens on 127\.0\.0\.1:1, not on .* --port 1$"),
        (("0.0.0.0", None), "a", r"listens on 0\.0\.0\.0:.* give --host 0\.0\.0\.0 --port"),
        ((None, None), "a", "without HTTP"),
        (("127.0.0.1", None), "other", "an application 'other' on this cluster already"),
    ],
)
def test_a_shared_serve_that_does_not_suit_is_refused_untouched(
    settings: ServeSettings,
    monkeypatch: pytest.MonkeyPatch,
    listens: tuple[str | None, int | None],
    name: str,
    message: str,
) -> None:
    host, port = listens
    fake = install(monkeypatch, FakeServe((host, port or settings.port)))
    with pytest.raises(SettingsError, match=message), deployed(settings, name):
        raise AssertionError
    assert fake.calls == []


@pytest.mark.parametrize("is_shared", [False, True])
def test_what_does_not_start_is_one_line_and_is_taken_down(
    settings: ServeSettings, monkeypatch: pytest.MonkeyPatch, is_shared: bool
) -> None:
    fake = FakeServe((settings.host, settings.port) if is_shared else None)
    fake.failure = RuntimeError(DEPLOY_FAILED)
    install(monkeypatch, fake)
    with pytest.raises(NotDeployedError) as caught, deployed(settings, "a"):
        raise AssertionError
    message = str(caught.value)
    assert "\n" not in message
    assert "Failed to update the deployments ['Sampler']" in message
    assert "Sampler: model.bundle.BundleError: model.safetensors was altered" in message
    assert "is well" not in message
    assert fake.calls[-1] == ("delete a" if is_shared else "shutdown")


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({"cpus_per_replica": 64}, "64 CPU"),
        ({"gpus_per_replica": 1}, "1 GPU"),
        ({"gpus_per_replica": None, "device": "cuda"}, "1 GPU"),
        ({"autoscale": {"min_replicas": 3, "max_replicas": 3}}, "3 workers with 1 CPU each"),
    ],
)
def test_what_no_node_can_hold_is_refused_before_serve_starts(
    settings: ServeSettings,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, object],
    asked: str,
) -> None:
    fake = install(monkeypatch, FakeServe())
    wanted = ServeSettings.model_validate(settings.model_dump() | changes)
    with (
        pytest.raises(SettingsError, match=f"serve asks for .*{asked}.*lower"),
        deployed(wanted, "a"),
    ):
        raise AssertionError
    assert fake.calls == []


def test_a_proxy_that_is_slow_to_start_is_waited_for(
    settings: ServeSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake = install(monkeypatch, FakeServe())
    fake.starting = ["STARTING", "UNHEALTHY", "HEALTHY"]
    monkeypatch.setattr(local, "_POLL_S", 0.0)
    with deployed(settings, "a"):
        assert fake.calls == ["start", "run a"]
    assert "The machine is busy" in caplog.text
    assert fake.starting == []


def test_a_proxy_that_never_starts_is_one_line(
    settings: ServeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = install(monkeypatch, FakeServe())
    fake.starting = ["STARTING"] * 9
    monkeypatch.setattr(local, "_PROXY_S", -1.0)
    with pytest.raises(NotDeployedError, match="proxy did not start"), deployed(settings, "a"):
        raise AssertionError
    assert fake.calls == ["start", "shutdown"]


def test_an_error_of_the_block_is_not_one_of_the_start(
    settings: ServeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, FakeServe())
    with pytest.raises(RuntimeError, match="mine"), deployed(settings, "a"):
        raise RuntimeError("mine")


def test_no_bundle_and_a_taken_port_are_found_before_anything_starts(
    settings: ServeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = install(monkeypatch, FakeServe())
    nothing = settings.model_copy(update={"bundle": f"{settings.bundle}/nothing"})
    with pytest.raises(BundleError, match="no bundle"), deployed(nothing, "a"):
        raise AssertionError
    with socket.socket() as taken:
        taken.bind((settings.host, settings.port))
        taken.listen()
        message = f"cannot listen on 127.0.0.1:{settings.port}"
        with pytest.raises(SettingsError, match=message), deployed(settings, "a"):
            raise AssertionError
    assert fake.calls == []
