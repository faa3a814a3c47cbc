"""A Serve application that is upgraded and scaled while clients listen; random bundles."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from ray import serve

from model.bundle.bundle import load_bundle
from pipeline.serving.local import deployed
from pipeline.serving.replica import SAMPLER, build
from pipeline.serving.schemas import GenerationBody
from pipeline.serving.settings import ServeSettings
from pipeline.serving.worker import load_worker
from tests.factories.bundle import write_bundle
from tests.factories.http import free_port

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(1200)]

APP = f"audiocalm-upgrade-{os.getpid()}"
BODY = {"description": "rain", "seconds": 60.0, "seed": 3, "num_flow_steps": 8}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two bundles that differ in their digests."""
    made = []
    for steps in (7, 9):
        sampling = {"sound": {"num_flow_steps": steps}}
        made.append(write_bundle(tmp_path_factory.mktemp("bundle"), sampling=sampling))
    return made


def settings_of(bundle: Path, **changes: Any) -> ServeSettings:
    values = {
        "bundle": str(bundle),
        "port": free_port(),
        "cpus_per_replica": 0.5,
        "batch": {"max_batch": 2, "max_waiting": 2},
        "autoscale": {"target_ongoing_requests": 1},
    }
    return ServeSettings.model_validate(values | changes)


def wait_until(is_true: Callable[[], bool], failure: str) -> None:
    deadline = time.monotonic() + 500
    while not is_true():
        assert time.monotonic() < deadline, failure
        time.sleep(0.2)


def ask(url: str, body: Mapping[str, Any]) -> bytes:
    """The raw audio of a request; an answer that breaks off raises."""
    fields = {**body, "response_format": "pcm"}
    answer = httpx.post(f"{url}/v1/audio/generations", json=fields, timeout=None)
    assert answer.status_code == 200, answer.text
    return answer.content


def digest(url: str) -> str:
    answer = httpx.get(f"{url}/ready", timeout=300)
    return str(answer.json().get("bundle", ""))


def num_running() -> int:
    deployments = serve.status().applications[APP].deployments
    states = deployments[SAMPLER].replica_states
    return int(states.get("RUNNING", 0))


def stats() -> dict[str, int]:
    handle = serve.get_deployment_handle(SAMPLER, APP).options(method_name="stats")
    counts: dict[str, int] = handle.remote().result(timeout_s=300)
    return counts


@pytest.fixture
def clients() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def test_an_upgrade_loses_no_stream_and_has_no_gap(
    ray_session: None, bundles: list[Path], clients: ThreadPoolExecutor
) -> None:
    old, new = (load_bundle(bundle).digest for bundle in bundles)
    settings = settings_of(bundles[0])
    worker = load_worker(settings, {}, has_gpu=False)
    job = GenerationBody.model_validate(BODY).job(3, "")
    handle, expected, is_last = worker.open(job), b"", False
    while not is_last:
        (step,) = worker.step([handle])
        expected, is_last = expected + step.samples, step.is_last
    with deployed(settings, APP) as url:
        assert digest(url) == old
        streams = [clients.submit(ask, url, BODY) for _ in range(2)]
        wait_until(lambda: stats()["running"] == 2, "the streams did not begin")
        upgraded = settings.model_copy(update={"bundle": str(bundles[1])})
        running: Future[Any] = clients.submit(
            serve.run, build(upgraded, {}), name=APP, route_prefix="/"
        )
        # Whoever asks in between is answered, by one bundle or the other.
        short = {**BODY, "seconds": 0.3}
        while not running.done():
            assert ask(url, short)
        running.result()
        wait_until(lambda: digest(url) == new, "the new bundle does not serve")
        for stream in streams:
            heard, alone = (
                np.frombuffer(samples, np.int16).astype(int)
                for samples in (stream.result(), expected)
            )
            np.testing.assert_allclose(heard, alone, atol=100)  # sums of a batch


def test_replicas_go_from_none_to_two_and_back_and_the_first_request_is_answered(
    ray_session: None, bundles: list[Path], clients: ThreadPoolExecutor
) -> None:
    autoscale = {
        "min_replicas": 0,
        "max_replicas": 2,
        "target_audio_s": 30.0,
        "target_ongoing_requests": 1,
        "upscale_delay_s": 0.0,
        "downscale_delay_s": 1.0,
    }
    settings = settings_of(bundles[0], autoscale=autoscale)
    with deployed(settings, APP) as url:
        wait_until(lambda: num_running() == 0, "there is a replica without a request")
        assert ask(url, {**BODY, "seconds": 0.5})  # waits for a cold start
        streams = [clients.submit(ask, url, {**BODY, "seed": seed}) for seed in range(4)]
        wait_until(lambda: num_running() == 2, "two minutes of audio did not add a replica")
        assert len({len(stream.result()) for stream in streams}) == 1
        wait_until(lambda: num_running() == 0, "calm did not remove the replicas")
        assert ask(url, {**BODY, "seconds": 0.5})
