"""Settings that change without a restart, in the classes that Ray Serve runs; no Ray."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient
from ray.serve.schema import ServeDeploySchema

from pipeline.errors import SettingsError
from pipeline.serving.answer import RefusedError
from pipeline.serving.app import create_app
from pipeline.serving.live import LiveSettings
from pipeline.serving.replica import INGRESS, SAMPLER, Ingress, Sampler
from pipeline.serving.schemas import AudioJob
from pipeline.serving.settings import LimitSettings, ServeSettings
from tests.factories.bundle import write_bundle
from tests.factories.serving import LocalEngine, end

SPEECH = {"model": "audiocalm", "input": "one two three four", "response_format": "pcm"}


def test_what_a_change_leaves_out_is_as_deployed() -> None:
    deployed = ServeSettings(
        limits=LimitSettings(max_duration_s=30, max_flow_steps=8), speech_description="A man."
    )
    live = LiveSettings(deployed)
    live.now = live.changed({"limits": {"max_duration_s": 10}, "speech_description": "A woman."})
    assert (live.now.limits.max_duration_s, live.now.limits.max_flow_steps) == (10, 8)
    assert live.now.speech_description == "A woman."
    assert live.changed({}) == deployed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"device": "cuda"}, "'device'; without a restart limits, sampling"),
        ({"speed": 2}, "'speed'; without a restart"),
        ({"limits": {"max_duration_s": -1}}, "limits.max_duration_s"),
        ({"limits": {"max_duration": 10}}, "did you mean 'limits.max_duration_s'"),
    ],
)
def test_what_needs_a_restart_or_is_wrong_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        LiveSettings(ServeSettings()).changed(change)


def test_the_documented_example_is_one_of_serve_and_of_the_endpoint() -> None:
    text = (Path(__file__).parents[3] / "docs" / "serving.md").read_text(encoding="utf-8")
    (example,) = [part.split("```")[0] for part in text.split("```yaml\n")[1:]]
    (application,) = ServeDeploySchema.model_validate(yaml.safe_load(example)).applications
    live = LiveSettings(ServeSettings.model_validate(application.args))
    assert {deployment.name for deployment in application.deployments} == {SAMPLER, INGRESS}
    for deployment in application.deployments:
        changed = live.changed(deployment.user_config)
        assert changed.limits.max_speech_s == 600
        assert changed.sampling == {"speech": {"num_flow_steps": 8}}


@pytest.fixture
def sampler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sampler]:
    monkeypatch.setattr("ray.get_gpu_ids", list)
    monkeypatch.setattr("pipeline.serving.metrics.SamplerMetrics", lambda: None)
    settings = ServeSettings(bundle=str(write_bundle(tmp_path)), voice_aliases={"nova": "ada"})
    built = Sampler(settings.model_dump(mode="json"), {"eve": [0.5] * 5})
    yield built
    end(built._engine)


def test_a_replica_takes_changes_and_running_requests_keep_what_they_began_with(
    sampler: Sampler,
) -> None:
    worker = sampler._worker
    job = AudioJob(description="x", transcript="One two three. Four five six.", modality="speech")
    before = worker.open(job)
    assert worker.service().aliases["nova"] == "ada"
    changes = {
        "limits": {"max_duration_s": 1.0, "max_speech_s": 60.0},
        "sampling": {"speech": {"num_flow_steps": 3}},
        "voice_aliases": {"nova": "eve"},
    }
    sampler.reconfigure(changes)
    assert sampler._worker is worker
    after = worker.open(job)
    steps = [
        handle.utterance.generation.request.options.num_flow_steps for handle in (before, after)
    ]
    assert steps == [16, 3]
    assert not before.utterance.later
    assert after.utterance.later  # parts of a second at most
    assert worker.service().aliases["nova"] == "eve"
    sound = AudioJob(description="rain", duration_s=2.0)
    with pytest.raises(RefusedError, match=r"duration_s|must be in \[0.1, 1"):
        worker.open(sound)
    # A later part of a request that was open is read with the limits it began with.
    assert before.utterance.limits.max_duration_s == 120.0
    assert before.utterance.bundle.sampling["speech"].num_flow_steps == 16
    sampler.reconfigure({})
    worker.close(worker.open(sound))
    assert worker.service().aliases["nova"] == "ada"
    for handle in (before, after):
        worker.close(handle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampling": {"noise": {}}}, "modality 'noise'"),
        ({"sampling": {"speech": {"num_steps": 3}}}, "no 'num_steps'"),
        ({"voice_aliases": {"nova": "bob"}}, "no such voice"),
    ],
)
def test_a_replica_refuses_a_change_as_a_whole(
    sampler: Sampler, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        sampler.reconfigure({"limits": {"max_duration_s": 1.0}, **change})
    sound = AudioJob(description="rain", duration_s=2.0)
    sampler._worker.close(sampler._worker.open(sound))


def test_requests_are_checked_by_the_limits_in_force() -> None:
    live = LiveSettings(ServeSettings())
    with LocalEngine() as engine, TestClient(create_app(engine, live)) as client:
        assert client.post("/v1/audio/speech", json=SPEECH).status_code == 200
        live.now = live.changed({"limits": {"max_transcript_chars": 10}})
        refused = client.post("/v1/audio/speech", json=SPEECH)
        assert refused.status_code == 400
        assert "18 characters; at most 10" in refused.json()["error"]["message"]
        live.now = live.changed({})
        assert client.post("/v1/audio/speech", json=SPEECH).status_code == 200


class _NoHandle:
    def options(self, **_: object) -> None:
        return None


def test_the_ingress_takes_changes_after_its_application_was_built() -> None:
    settings = ServeSettings().model_dump(mode="json")
    ingress = Ingress(_NoHandle(), settings, {}, None)  # type: ignore[arg-type]  # never called
    with TestClient(ingress.__serve_build_asgi_app__()) as client:
        ingress.reconfigure({"limits": {"max_transcript_chars": 10}})
        assert client.post("/v1/audio/speech", json=SPEECH).status_code == 400
    with pytest.raises(SettingsError, match="'port'"):
        ingress.reconfigure({"port": 1})


def test_a_job_keeps_its_own_sampling(sampler: Sampler) -> None:
    sampler.reconfigure({"sampling": {"sound": {"num_flow_steps": 3, "temperature": 0.5}}})
    job = AudioJob(description="rain", duration_s=0.5)
    for sampling, steps in (({}, 3), ({"num_flow_steps": 5}, 5)):
        handle = sampler._worker.open(dataclasses.replace(job, sampling=sampling))
        options = handle.utterance.generation.request.options
        assert (options.num_flow_steps, options.temperature) == (steps, 0.5)
        sampler._worker.close(handle)
