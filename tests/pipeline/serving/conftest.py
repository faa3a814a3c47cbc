"""Engines that count instead of generating, and the HTTP interface over one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from fastapi.testclient import TestClient

from pipeline.serving.app import create_app
from pipeline.serving.engine import BatchEngine
from pipeline.serving.settings import BatchSettings, ServeSettings
from tests.factories.serving import FakeWorker, Handle, LocalEngine, end

Engine = BatchEngine[Handle]


@pytest.fixture
def engine() -> Iterator[LocalEngine]:
    with LocalEngine() as built:
        yield built


@pytest.fixture
def client(engine: LocalEngine) -> Iterator[TestClient]:
    with TestClient(create_app(engine, ServeSettings(bundle="b"))) as built:
        yield built


@pytest.fixture
def build() -> Iterator[Callable[..., tuple[Engine, FakeWorker]]]:
    engines: list[Engine] = []
    workers: list[FakeWorker] = []

    def make(*, is_manual: bool = False, **settings: float) -> tuple[Engine, FakeWorker]:
        worker = FakeWorker(is_manual=is_manual)
        engine: Engine = BatchEngine(worker, BatchSettings(**settings))  # type: ignore[arg-type]
        engines.append(engine)
        workers.append(worker)
        return engine, worker

    yield make
    for engine, worker in zip(engines, workers, strict=True):
        end(engine, worker)
