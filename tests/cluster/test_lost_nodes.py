"""A cluster of several nodes loses one in the middle of each job, and the results are the same.

The nodes are raylets on this machine with resources of their own, GPUs that do not exist included.
Jobs are submitted to the job server, and their files lie in a folder that all nodes share.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
import torch
import yaml

from jobs import cli
from model.bundle.bundle import load_bundle
from model.bundle.request import SynthesisRequest
from model.bundle.synthesis import Synthesizer
from pipeline.cluster import WORKER_ENVIRONMENT, this_node
from pipeline.data import encode as encode_module
from pipeline.data.encode import EncodeResources, EncodeSettings, EncodeWorker
from pipeline.data.units.stage import Unit, UnitOutput, run_stage
from pipeline.serving.formats import pcm_bytes
from pipeline.serving.replica import SAMPLER
from pipeline.settings import save_settings
from pipeline.storage import Folder
from pipeline.submission.client import ENDED, connect, find_job, state_of
from pipeline.training.average import averaged_model
from pipeline.training.checkpoint_store import CheckpointStore
from pipeline.training.settings import TrainSettings
from tests.chaos.kills import ACTOR_TITLE, num_units
from tests.chaos.prepare import Arena, differences, digests
from tests.factories.bundle import write_bundle
from tests.factories.http import free_port
from tests.factories.ray_nodes import RayNodes, ray_nodes
from tests.factories.train_shards import mixed_clips, write_shards
from tests.factories.training import run_workers, small_settings, train_to_the_end

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(1800)]

WAIT_S = 900.0
"""Time after which a job or an endpoint counts as hung, seconds."""
_LOOKS_PER_STATE = 30
"""How often files are looked at for each request for the state of a job."""
NODE = {"num_cpus": 2, "num_gpus": 1}
"""One worker of a job fills a node: it reserves the CPUs or the GPU."""
BODY = {"description": "rain", "seconds": 2.0, "seed": 11, "num_flow_steps": 2}


@pytest.fixture(scope="module")
def head() -> Iterator[RayNodes]:
    """A head that runs drivers only, as in `cluster/raycluster.yaml`."""
    with ray_nodes(num_cpus=0) as nodes:
        yield nodes


@pytest.fixture
def nodes(head: RayNodes) -> RayNodes:
    """The head and three worker nodes; those that the test before has lost are replaced."""
    while len(head.cluster.worker_nodes) < 3:
        head.add(**NODE)
    return head


def wait_until(is_true: Callable[[], Any], failure: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_true():
        assert time.monotonic() < deadline, failure
        time.sleep(0.2)


@dataclass(frozen=True)
class Job:
    """A submitted command."""

    nodes: RayNodes
    name: str

    @classmethod
    def submitted(cls, nodes: RayNodes, command: str, *words: str) -> Job:
        address = ["--address", nodes.url, "--name", command, "--detach"]
        assert cli.main(["submit", command, *words, *address]) == 0
        return cls(nodes, command)

    def is_running(self) -> bool:
        return state_of(find_job(connect(self.nodes.url), self.name)) not in ENDED

    def wait_until(self, is_true: Callable[[], Any]) -> None:
        """Wait for what the job brings about while it runs."""
        while self.is_running():
            for _ in range(_LOOKS_PER_STATE):
                if is_true():
                    return
                time.sleep(0.1)
        assert is_true(), self.log()

    def end(self) -> int:
        """Follow the job to its end; returns its exit code."""
        return cli.main(["status", self.name, "--follow", "--address", self.nodes.url])

    def log(self) -> str:
        server = connect(self.nodes.url)
        return server.get_job_logs(find_job(server, self.name).submission_id)


def test_prepare_loses_a_node_and_writes_the_same_bytes(nodes: RayNodes, tmp_path: Path) -> None:
    arena, output = Arena.build(tmp_path, num_clips=40), tmp_path / "output"
    places = {"input": tmp_path / "corpora", "codec": tmp_path / "codec", "output": output}
    words = [word for name, place in places.items() for word in (f"--{name}", str(place))]
    sizes = ["ingest.unit_clips=4", "shard.parts_per_unit=2", "encode.resources.gpus=1"]
    sizes += [f"{stage}.resources.workers=2" for stage in ("ingest", "encode", "describe", "shard")]
    job = Job.submitted(nodes, "prepare", *words, *(f"--set={size}" for size in sizes))
    job.wait_until(lambda: num_units(output / "latents"))
    nodes.kill_one_with(ACTOR_TITLE)
    assert job.is_running(), "the node was lost too late"
    assert job.end() == 0, job.log()
    assert not differences(arena.expected, digests(output))


class WaitingEncodeWorker(EncodeWorker):
    """Names the node that it is on, and encodes only once a file `go` is there."""

    def __init__(self, signs: str, **given: Any) -> None:
        super().__init__(**given)
        self._signs = Path(signs)

    def process(self, unit: Unit) -> UnitOutput:
        (self._signs / this_node()).touch()
        while not (self._signs / "go").exists():
            time.sleep(0.1)
        return super().process(unit)


def test_encoding_takes_in_a_new_node_does_without_a_lost_one_and_writes_the_same_bytes(
    nodes: RayNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arena, signs, out = Arena.build(tmp_path, num_clips=40), tmp_path / "signs", tmp_path / "out"
    signs.mkdir()

    def run_waiting(folder: Folder, **given: Any) -> dict[str, Any]:
        waiting = {"worker_kwargs": {**given["worker_kwargs"], "signs": str(signs)}}
        return run_stage(folder, **given | waiting | {"worker": WaitingEncodeWorker})

    monkeypatch.setattr(encode_module, "run_stage", run_waiting)
    first = len(nodes.cluster.worker_nodes)
    settings = EncodeSettings(resources=EncodeResources(workers=first + 1, gpus=1))
    clips = Folder.at(tmp_path / "undisturbed/clips")
    with connected(nodes), ThreadPoolExecutor(1) as pool:  # the main thread alone can add nodes
        job = pool.submit(
            encode_module.encode, clips, Folder.at(out), settings, str(tmp_path / "codec")
        )
        try:
            wait_until(lambda: num_signs(signs, job) == first, "the first nodes do not work")
            nodes.add(**NODE)
            wait_until(lambda: num_signs(signs, job) == first + 1, "the new node does not work")
            nodes.kill_one_with(ACTOR_TITLE)
            assert not num_units(out)
        finally:
            (signs / "go").touch()
        job.result()
    expected = {
        name.removeprefix("latents/"): digest
        for name, digest in arena.expected.items()
        if name.startswith("latents/")
    }
    assert not differences(expected, digests(out))


@contextmanager
def connected(nodes: RayNodes) -> Iterator[None]:
    """This process as a driver."""
    ray.init(address=nodes.cluster.address, runtime_env={"env_vars": WORKER_ENVIRONMENT})
    try:
        yield
    finally:
        ray.shutdown()


def num_signs(signs: Path, job: Future[Any]) -> int:
    """Nodes on which a worker has been given a unit."""
    assert not job.done(), job.result()
    return len(list(signs.iterdir()))


def test_training_loses_a_node_and_ends_in_the_same_weights(
    nodes: RayNodes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shards, run, recipe = tmp_path / "shards", tmp_path / "run", tmp_path / "recipe.yaml"
    write_shards(shards, mixed_clips(12))
    settings = endless_settings()
    recipe.write_text(save_settings(settings))
    words = ["--shards", str(shards), "--output", str(run), "--config", str(recipe)]
    job = Job.submitted(nodes, "train", *words)
    store = CheckpointStore(Folder.at(run / "checkpoints"))
    job.wait_until(store.steps)
    nodes.kill_one_with("RayTrainWorker")
    lost_at = store.steps()[-1]
    # One checkpoint may have been under way; the second is one of a new group of workers.
    later = lost_at + 2 * settings.checkpoint.every
    job.wait_until(lambda: store.steps()[-1] >= later)
    capfd.readouterr()
    assert cli.main(["stop", "train", "--address", nodes.url]) == 0
    last = int(re.findall(r"last checkpoint at step (\d+)", capfd.readouterr().out)[0])
    assert json.loads((run / "summary.json").read_text())["step"] == last
    values = settings.model_dump(mode="json")
    values["optim"]["num_steps"] = last
    undisturbed = tmp_path / "undisturbed"
    expected = run_workers(train_to_the_end, 2, tmp_path / "workers", values, undisturbed, shards)
    found = dict(averaged_model(store, last).named_parameters())
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name].detach().flatten(), value), name


def endless_settings() -> TrainSettings:
    """Two workers, each of which fills a node; the rate does not depend on the last step."""
    return small_settings(
        engine={"precision": "fp32", "num_workers": 2, "cpus_per_worker": 2},
        feed={"documents_per_step": 24},
        optim={"num_steps": 10**6, "warmup_steps": 2, "decay_share": 0.0},
        checkpoint={"every": 20},
        log_every=20,
    )


def test_an_endpoint_loses_the_node_of_its_replica_and_comes_back_on_another(
    nodes: RayNodes, tmp_path: Path
) -> None:
    bundle = write_bundle(tmp_path)
    url = deploy(nodes, bundle, tmp_path / "serve.yaml")
    assert ask(url) == expected_pcm(bundle)
    endless = {**BODY, "seconds": 600.0, "num_flow_steps": 64}
    with httpx.stream("POST", f"{url}/v1/audio/generations", json=endless, timeout=WAIT_S) as sent:
        chunks = sent.iter_raw()
        next(chunks)
        nodes.kill_one_with(f"ServeReplica:audiocalm:{SAMPLER}")
        with pytest.raises(httpx.RemoteProtocolError):
            list(chunks)
    wait_until(lambda: is_ready(url), "the endpoint did not come back")
    assert ask(url) == expected_pcm(bundle)


def deploy(nodes: RayNodes, bundle: Path, config: Path) -> str:
    """Deploy an endpoint with one replica, which fills a node, by `serve deploy`; gives its URL."""
    port = free_port()
    arguments = {
        "bundle": str(bundle),
        "device": "cpu",
        "gpus_per_replica": 1,
        "cpus_per_replica": 1,
        "limits": {"max_duration_s": 600},
    }
    application = {
        "name": "audiocalm",
        "route_prefix": "/",
        "import_path": "jobs.serve:build_app",
        "args": arguments,
    }
    # On one machine only one proxy can have the port.
    http = {"host": "127.0.0.1", "port": port}
    served = {"proxy_location": "HeadOnly", "http_options": http, "applications": [application]}
    config.write_text(yaml.safe_dump(served))
    serve = Path(sys.executable).with_name("serve")
    subprocess.run([serve, "deploy", config, "--address", nodes.url], check=True)
    url = f"http://127.0.0.1:{port}"
    wait_until(lambda: is_ready(url), "the endpoint did not start")
    return url


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready", timeout=60).status_code == 200
    except httpx.TransportError:
        return False


def ask(url: str) -> bytes:
    body = {**BODY, "response_format": "pcm"}
    answer = httpx.post(f"{url}/v1/audio/generations", json=body, timeout=WAIT_S)
    assert answer.status_code == 200, answer.text
    return answer.content


def expected_pcm(bundle: Path) -> bytes:
    """The audio of the request as the model makes it without an endpoint."""
    sampling = {"num_flow_steps": BODY["num_flow_steps"]}
    request = SynthesisRequest(description="rain", duration_s=2.0, seed=11, sampling=sampling)
    chunks = list(Synthesizer(load_bundle(bundle)).stream(request))
    return pcm_bytes(torch.cat(chunks, dim=-1).numpy())
