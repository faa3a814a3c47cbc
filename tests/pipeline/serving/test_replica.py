"""The endpoint on Ray Serve with a random bundle: the only test of the serving room with Ray."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import torch
from ray import serve

from model.bundle.bundle import load_bundle
from model.bundle.request import SynthesisRequest
from model.bundle.synthesis import Synthesizer
from pipeline.serving.formats import pcm_bytes
from pipeline.serving.local import deployed
from pipeline.serving.replica import SAMPLER
from pipeline.serving.settings import BatchSettings, LimitSettings, ServeSettings
from tests.factories.bundle import write_bundle
from tests.factories.http import free_port
from tests.factories.prometheus import exported, prometheus
from tests.factories.serving import pcm_in

CLUSTER = Path(__file__).parents[3] / "cluster"
APP = f"audiocalm-test-{os.getpid()}"

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("served"))


@serve.deployment(ray_actor_options={"num_cpus": 0})
class Neighbour:
    """An application of somebody else on the same cluster."""

    async def __call__(self, _: object) -> str:
        return "still here"


@pytest.fixture(scope="module")
def shared(ray_session: None) -> Iterator[int]:
    """The port of a Serve that runs before the endpoint and after it."""
    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    try:
        serve.run(Neighbour.bind(), name=f"{APP}-neighbour", route_prefix="/neighbour")
        yield port
    finally:
        serve.shutdown()


@pytest.fixture(scope="module")
def endpoint(shared: int, bundle: Path) -> Iterator[str]:
    settings = ServeSettings(
        bundle=str(bundle),
        port=shared,
        cpus_per_replica=0.5,
        max_queued_requests=1,
        batch=BatchSettings(max_batch=2, max_waiting=0),
        autoscale={"target_ongoing_requests": 1},
        limits=LimitSettings(max_duration_s=600),
        # Speech never ends by itself, so it reaches its longest duration.
        sampling={"speech": {"stop_threshold": 1.0, "num_flow_steps": 1}},
    )
    with deployed(settings, APP) as url:
        yield url
    wait_until(lambda: APP not in serve.status().applications, "the endpoint stayed")
    assert httpx.get(f"http://127.0.0.1:{shared}/neighbour", timeout=300).text == "still here"


def wait_until(is_true: Callable[[], bool], failure: str) -> None:
    deadline = time.monotonic() + 300
    while not is_true():
        assert time.monotonic() < deadline, failure
        time.sleep(0.2)


def stats() -> dict[str, int]:
    handle = serve.get_deployment_handle(SAMPLER, APP).options(method_name="stats")
    counts: dict[str, int] = handle.remote().result(timeout_s=300)
    return counts


def is_idle() -> bool:
    """Whether no request runs; one that was left runs on for a moment."""
    return stats()["running"] == 0


def body(**changes: object) -> dict:
    return {
        "description": "rain",
        "seconds": 0.7,
        "seed": 11,
        "num_flow_steps": 2,
        **changes,
    }


def expected(bundle: Path, **changes: object) -> bytes:
    fields = body(**changes)
    sampling = {"num_flow_steps": fields.pop("num_flow_steps")}
    duration_s = fields.pop("seconds")
    request = SynthesisRequest(**fields, duration_s=duration_s, sampling=sampling)
    chunks = list(Synthesizer(load_bundle(bundle)).stream(request))
    return pcm_bytes(torch.cat(chunks, dim=-1).numpy())


def close(left: bytes, right: bytes) -> bool:
    """Equal but for what phases of random latents make of sums that differ in a batch."""
    a, b = (torch.frombuffer(bytearray(x), dtype=torch.int16).int() for x in (left, right))
    return a.shape == b.shape and int((a - b).abs().max()) <= 100


@contextlib.contextmanager
def held_slot(endpoint: str) -> Iterator[Iterator[bytes]]:
    """A request that runs far longer than any test, from its first chunk on."""
    fields = body(seconds=600.0, num_flow_steps=64)
    with httpx.stream(
        "POST", f"{endpoint}/v1/audio/generations", json=fields, timeout=300
    ) as answer:
        chunks = answer.iter_raw()
        next(chunks)
        yield chunks


def test_ready_and_known(endpoint: str) -> None:
    assert httpx.get(f"{endpoint}/ready", timeout=300).json()["status"] == "ready"
    voices = httpx.get(f"{endpoint}/v1/audio/voices", timeout=300).json()
    names = [voice["id"] for voice in voices["voices"]]
    assert names[:2] == ["default", "ada"]
    assert "alloy" in names
    assert "<form" in httpx.get(endpoint, timeout=300).text


def test_streamed_wav_equals_the_offline_synthesis(endpoint: str, bundle: Path) -> None:
    with httpx.stream(
        "POST", f"{endpoint}/v1/audio/generations", json=body(), timeout=300
    ) as answer:
        assert answer.status_code == 200
        assert answer.headers["transfer-encoding"] == "chunked"
        received = b"".join(answer.iter_raw())
    assert received.count(b"RIFF") == 1
    assert pcm_in(received) == expected(bundle)


def test_400_comes_from_the_model_too(endpoint: str) -> None:
    answer = httpx.post(f"{endpoint}/v1/audio/generations", json=body(voice="eve"), timeout=300)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == "voice"
    assert "there is default, ada" in error["message"]


def test_prometheus_reads_every_metric_of_the_table_and_the_dashboard(
    endpoint: str, tmp_path: Path
) -> None:
    speech = {"transcript": "No.", "stream": False}
    answer = httpx.post(f"{endpoint}/v1/audio/generations", json=speech, timeout=300)
    assert (answer.status_code, answer.headers["X-Capped"]) == (200, "true")
    wrong = httpx.post(f"{endpoint}/v1/audio/generations", json=body(seconds=-1.0), timeout=300)
    assert wrong.status_code == 400
    table = (CLUSTER / "README.md").read_text("utf-8")
    names = {f"ray_{name}" for name in re.findall(r"`(audiocalm_[a-z_]+)`", table)}
    assert len(names) == 7

    def missing() -> set[str]:
        found = exported()  # Ray exports a metric some seconds after it was recorded
        return {name for name in names if not any(known.startswith(name) for known in found)}

    wait_until(lambda: not missing(), f"some of {sorted(names)} were never exported")
    assert exported()["ray_audiocalm_capped_total"] >= 1
    panels = json.loads((CLUSTER / "grafana.json").read_text("utf-8"))["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    assert len(queries) >= len(names)
    with prometheus(tmp_path) as query:
        if query is None:
            return  # its parser has read the metrics
        for expression in queries:
            wait_until(lambda e=expression: bool(query(e)), f"no series for {expression}")


def test_full_replicas_share_batches_stay_ready_and_refuse_what_cannot_wait(
    endpoint: str, bundle: Path
) -> None:
    def ask(seed: int) -> httpx.Response:
        fields = body(seed=seed, response_format="pcm")
        return httpx.post(f"{endpoint}/v1/audio/generations", json=fields, timeout=300)

    with contextlib.ExitStack() as held, concurrent.futures.ThreadPoolExecutor(4) as pool:
        held.enter_context(held_slot(endpoint))
        beside = ask(seed=5)
        assert stats()["largest_batch"] == 2
        held.enter_context(held_slot(endpoint))
        # Both slots are taken now: one request may wait in the router, the others may not.
        answers = [pool.submit(ask, seed) for seed in range(4)]
        ended = concurrent.futures.as_completed(answers, timeout=300)
        refused = [next(ended).result() for _ in range(3)]
        assert httpx.get(f"{endpoint}/ready", timeout=300).status_code == 200
        held.close()
        waited = next(ended)
    assert {answer.status_code for answer in refused} == {429}
    assert {answer.headers["retry-after"] for answer in refused} == {"2"}
    assert close(beside.content, expected(bundle, seed=5))
    assert close(waited.result().content, expected(bundle, seed=answers.index(waited)))


def test_a_client_that_leaves_frees_its_slot(endpoint: str) -> None:
    wait_until(is_idle, "the slots of the test before are taken")
    before = stats()["cancelled"]
    with held_slot(endpoint):
        assert stats()["running"] == 1
    wait_until(is_idle, "the slot was not freed")
    assert stats()["cancelled"] == before + 1


def test_a_replica_that_dies_aborts_its_stream_and_another_takes_over(endpoint: str) -> None:
    with held_slot(endpoint) as chunks:
        replica = f"ServeReplica:{APP}:{SAMPLER}"
        (process,) = [
            process
            for process in psutil.process_iter(["cmdline"])
            if any(replica in word for word in process.info["cmdline"] or [])
        ]
        process.kill()
        with pytest.raises(httpx.RemoteProtocolError):
            list(chunks)
    wait_until(lambda: is_ready(endpoint), "no replica came back")


def is_ready(endpoint: str) -> bool:
    try:
        return httpx.get(f"{endpoint}/ready", timeout=30).status_code == 200
    except httpx.TimeoutException:
        return False
