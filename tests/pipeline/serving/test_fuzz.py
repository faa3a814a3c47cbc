"""Requests made from the endpoint's own OpenAPI document, valid and not, against a real model.

`make test` makes a few hundred of them, the same ones every time; `make fuzz` makes thousands of
new ones.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from model.config import MODALITIES
from pipeline.serving.answer import Item
from pipeline.serving.app import create_app
from pipeline.serving.engine import BatchEngine
from pipeline.serving.schemas import AudioJob
from pipeline.serving.settings import LimitSettings, ServeSettings
from pipeline.serving.stream import Service
from pipeline.serving.worker import BundleWorker, load_worker
from tests.factories.bundle import write_bundle
from tests.factories.serving import end

logger = logging.getLogger(__name__)

NUM_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
"""Requests of each kind to each route; 0 takes the few of `make test`."""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
LIMITS = LimitSettings(max_duration_s=0.4, max_speech_s=2.0, max_flow_steps=16)
ROUTES = [
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/v1/models"),
    ("GET", "/v1/audio/voices"),
    ("POST", "/v1/audio/generations"),
    ("POST", "/v1/audio/speech"),
    ("GET", "/v1/models/{name}"),
    ("GET", "/v1/audio/models"),
]


class BundleEngine:
    """A real model behind the endpoint, in this process."""

    def __init__(self, bundle: Path) -> None:
        self.settings = ServeSettings(bundle=str(bundle), device="cpu", limits=LIMITS)
        self.worker: BundleWorker = load_worker(self.settings, {}, has_gpu=False)
        self.batch = BatchEngine(self.worker, self.settings.batch)

    async def generate(self, job: AudioJob) -> AsyncIterator[Item]:
        async with aclosing(self.batch.generate(job)) as items:  # type: ignore[type-var]
            async for item in items:
                yield item

    async def service(self) -> Service:
        return self.worker.service()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BundleEngine]:
    sampling = {modality: {"num_flow_steps": 1} for modality in MODALITIES}
    built = BundleEngine(write_bundle(tmp_path_factory.mktemp("bundle"), sampling=sampling))
    yield built
    end(built.batch)


@pytest.fixture(scope="module")
def app(engine: BundleEngine) -> FastAPI:
    return create_app(engine, engine.settings)


def likelier(body: object, data: st.DataObject) -> object:
    """A body that comes further than chance would take it: names that exist, a text of words."""
    if not isinstance(body, dict) or not data.draw(st.booleans()):
        return body
    known = {
        "model": st.sampled_from(["tts-1", "audiocalm"]),
        "voice": st.sampled_from(["default", "ada", "alloy"]),
        "input": st.sampled_from(["One. Two.", "One, two, three. Four!", "no", "\u4f60\u597d"]),
        "transcript": st.sampled_from([None, "One. Two.", "Hi, hi, hi."]),
        "seconds": st.sampled_from([None, 0.1, 0.3]),
        "num_flow_steps": st.integers(1, 16),
        "first_flow_steps": st.integers(1, 16),
        "guidance_scale": st.floats(0, 20),
        "guidance_interval": st.floats(0, 1).map(lambda start: [start, 1]),
        "voice_embedding": st.none() | st.lists(st.floats(-1000, 1000), min_size=5, max_size=5),
        "speed": st.floats(0.25, 4),
        "n": st.integers(1, 3),
        "stream": st.sampled_from([None, False]),
    }
    return body | {name: data.draw(known[name]) for name in known if name in body}


@pytest.mark.slow
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_no_request_is_an_error_of_the_server(
    app: FastAPI, engine: BundleEngine, method: str, path: str, mode: GenerationMode
) -> None:
    has_body = method == "POST"
    if mode is GenerationMode.NEGATIVE and not has_body:
        pytest.skip("nothing about it can be wrong")
    operation = schemathesis.openapi.from_asgi("/openapi.json", app)[path][method]
    answered: dict[int, int] = {}

    @settings(
        max_examples=NUM_EXAMPLES or (60 if has_body else 2),
        derandomize=not NUM_EXAMPLES,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def ask(data: st.DataObject) -> None:
        case = data.draw(operation.as_strategy(generation_mode=mode))
        if has_body:
            case.body = likelier(case.body, data)
        if "{name}" in path and data.draw(st.booleans()):
            case.path_parameters = {"name": "tts-1"}
        response = case.call_and_validate(checks=CHECKS)
        answered[response.status_code] = answered.get(response.status_code, 0) + 1

    ask()
    logger.info("%s %s %s: %s", method, path, mode.value, dict(sorted(answered.items())))
    engine.batch.check_health()
    assert engine.batch.stats()["running"] == 0
    if mode is GenerationMode.POSITIVE and "{name}" not in path:  # few names are of a model
        assert answered.get(200, 0) > 0
