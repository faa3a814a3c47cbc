"""What a replica reports to Ray's metrics, over an engine that counts and metrics that remember."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.serving import metrics
from pipeline.serving.answer import Item, Opening, Refusal
from pipeline.serving.engine import BatchEngine, GenerationFailedError
from pipeline.serving.metrics import SamplerMetrics
from pipeline.serving.schemas import AudioJob
from pipeline.serving.settings import BatchSettings
from tests.factories.serving import CHUNK_SAMPLES, DIGEST, LAYOUT, FakeWorker, Handle, end


class Remembered:
    """A gauge, counter or histogram of Ray; keeps every value."""

    def __init__(self, name: str, description: str, **_: object) -> None:
        assert description
        self.values: list[float] = []
        self.set = self.observe = self.values.append
        self.outcomes: list[str] = []

    def inc(self, value: float = 1.0, tags: dict[str, str] | None = None) -> None:
        self.values.append(value)
        self.outcomes += (tags or {}).values()


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[float]]:
    made: dict[str, list[float]] = {}

    def make(name: str, **more: str) -> Remembered:
        metric = Remembered(name, **more)
        made[name] = metric.values
        return metric

    fake = SimpleNamespace(Gauge=make, Counter=make, Histogram=make)
    monkeypatch.setattr(metrics, "metrics", fake)
    return made


@pytest.fixture
def engine() -> Iterator[BatchEngine[Handle]]:
    built: BatchEngine[Handle] = BatchEngine(FakeWorker(), BatchSettings())
    yield built
    end(built)


async def listen(items: AsyncIterator[Item], at_most: int | None = None) -> list[Item]:
    heard = []
    async with aclosing(items):  # type: ignore[type-var]
        async for item in items:
            heard.append(item)
            if len(heard) == at_most:
                break
    return heard


def job(seconds: float, description: str = "rain") -> AudioJob:
    return AudioJob(description=description, duration_s=seconds)


def test_slots_audio_and_first_audio_of_one_request(
    recorded: dict[str, list[float]], engine: BatchEngine[Handle]
) -> None:
    now = iter([10.0, 10.25, 10.5])
    watching = SamplerMetrics(clock=lambda: next(now))
    heard = asyncio.run(listen(watching.watched(engine.generate(job(3)), engine.stats)))
    assert heard[0] == Opening(LAYOUT, DIGEST)
    assert all(name.startswith("audiocalm_") for name in recorded)
    assert recorded["audiocalm_time_to_first_audio_seconds"] == [0.25]
    seconds = sum(recorded["audiocalm_generated_audio_seconds"])
    assert seconds == pytest.approx(3 * CHUNK_SAMPLES / LAYOUT.sample_rate)
    assert recorded["audiocalm_real_time_factor"] == [pytest.approx(0.5 / seconds)]
    assert recorded["audiocalm_active_slots"][-1] == 0
    assert set(recorded["audiocalm_queue_length"]) == {0}


def test_a_request_that_leaves_early_frees_its_slot_and_is_no_longer_counted(
    recorded: dict[str, list[float]], engine: BatchEngine[Handle]
) -> None:
    watching = SamplerMetrics()
    answer = watching.watched(engine.generate(job(10**6)), engine.stats)
    assert len(asyncio.run(listen(answer, at_most=2))) == 2
    assert recorded["audiocalm_active_slots"][0] == 1
    assert recorded["audiocalm_active_slots"][-1] == 0
    assert engine.stats()["cancelled"] == 1


def test_a_refusal_is_no_audio(
    recorded: dict[str, list[float]], engine: BatchEngine[Handle]
) -> None:
    watching = SamplerMetrics()
    answer = watching.watched(engine.generate(job(1, "refuse")), engine.stats)
    (refusal,) = asyncio.run(listen(answer))
    assert isinstance(refusal, Refusal)
    assert recorded["audiocalm_time_to_first_audio_seconds"] == []
    assert recorded["audiocalm_generated_audio_seconds"] == []


def test_rays_own_metrics_take_the_names(engine: BatchEngine[Handle]) -> None:
    answer = SamplerMetrics().watched(engine.generate(job(1)), engine.stats)
    assert len(asyncio.run(listen(answer))) == 3


def test_speech_that_was_capped_is_counted(
    recorded: dict[str, list[float]], engine: BatchEngine[Handle]
) -> None:
    watching = SamplerMetrics()
    for words in ("capped", "rain", "capped"):
        asyncio.run(listen(watching.watched(engine.generate(job(1, words)), engine.stats)))
    assert sum(recorded["audiocalm_capped_total"]) == 2


def test_every_request_ends_with_one_outcome(
    monkeypatch: pytest.MonkeyPatch, engine: BatchEngine[Handle]
) -> None:
    made: dict[str, Remembered] = {}

    def make(name: str, **more: str) -> Remembered:
        return made.setdefault(name, Remembered(name, **more))

    fake = SimpleNamespace(Gauge=make, Counter=make, Histogram=make)
    monkeypatch.setattr(metrics, "metrics", fake)
    watching = SamplerMetrics()
    for words, at_most in (("rain", None), ("refuse", None), ("rain", 2), ("break after 1", None)):
        answer = watching.watched(engine.generate(job(5, words)), engine.stats)
        with contextlib.suppress(GenerationFailedError):
            asyncio.run(listen(answer, at_most))
    outcomes = made["audiocalm_requests"].outcomes
    assert outcomes == ["complete", "invalid", "cancelled", "failed"]


def test_every_metric_is_in_the_documentation_and_on_the_dashboard(
    recorded: dict[str, list[float]],
) -> None:
    SamplerMetrics()
    root = Path(__file__).parents[3]
    table = (root / "cluster" / "README.md").read_text("utf-8")
    dashboard = (root / "cluster" / "grafana.json").read_text("utf-8")
    for name in recorded:
        assert f"`{name}`" in table
        assert f"ray_{name}" in dashboard
    for name in re.findall(r"ray_(audiocalm_[a-z_]+?)(?:_total|_bucket)?[\\[{)]", dashboard):
        assert name in recorded or f"{name}_total" in recorded
