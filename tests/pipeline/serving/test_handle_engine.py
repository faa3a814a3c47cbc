"""What the ingress knows of its replicas, over a handle that answers as told; no Ray."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import BackPressureError

from pipeline.serving.answer import Ending, Item, Opening, Refusal
from pipeline.serving.errors import NotReadyError
from pipeline.serving.replica import HandleEngine
from pipeline.serving.schemas import AudioJob
from pipeline.serving.stream import Service
from tests.factories.serving import DIGEST, LAYOUT

FACTS = Service(LAYOUT, {"ada": "A woman speaks."}, 4, "digest")


class FakeHandle:
    """A deployment handle; `is_full` refuses calls for facts, streams go on. Where the replica
    `dies_after` so many items, facts are not told either."""

    def __init__(self, dies_after: int | None = None) -> None:
        self.is_full = False
        self.dies_after = dies_after
        self.now = 100.0

    def options(self, *, method_name: str, stream: bool = False) -> FakeMethod:
        return FakeMethod(self, method_name)


class FakeMethod:
    def __init__(self, handle: FakeHandle, name: str) -> None:
        self._handle, self._name = handle, name

    def remote(self, *_: object) -> Any:
        return self._items() if self._name == "generate" else self._facts()

    async def _facts(self) -> Service:
        if self._handle.is_full:
            raise BackPressureError(2, 1)
        if self._handle.dies_after is not None:
            raise ActorDiedError
        return FACTS

    async def _items(self) -> AsyncIterator[Opening | bytes]:
        dies_after = self._handle.dies_after
        for number, item in enumerate((Opening(LAYOUT, DIGEST), b"12", Ending())):
            if number == dies_after:
                raise ActorDiedError
            yield item


def engine_over(handle: FakeHandle) -> HandleEngine:
    return HandleEngine(handle, clock=lambda: handle.now)  # type: ignore[arg-type]  # a fake


async def listen(engine: HandleEngine) -> list[Item]:
    return [item async for item in engine.generate(AudioJob(description="rain"))]


def test_a_replica_that_dies_before_the_first_audio_is_a_503_that_says_so() -> None:
    (refusal,) = asyncio.run(listen(engine_over(FakeHandle(dies_after=0))))
    assert isinstance(refusal, Refusal)
    assert refusal.status == 503
    assert "died before the first audio" in refusal.message


def test_a_replica_that_dies_later_breaks_the_answer_off() -> None:
    with pytest.raises(ActorDiedError):
        asyncio.run(listen(engine_over(FakeHandle(dies_after=1))))


def test_a_dead_replica_is_not_ready_even_if_it_was() -> None:
    async def ask() -> None:
        handle = FakeHandle()
        engine = engine_over(handle)
        assert await engine.service() == FACTS
        handle.dies_after = 0
        await engine.service()

    with pytest.raises(NotReadyError, match="died"):
        asyncio.run(ask())


def test_replicas_that_were_never_heard_of_are_not_ready() -> None:
    handle = FakeHandle()
    handle.is_full = True
    with pytest.raises(NotReadyError, match="no replica has room"):
        asyncio.run(engine_over(handle).service())


@pytest.mark.parametrize("silence_s", [1.0, 60.0])
def test_full_replicas_are_ready_as_long_as_audio_comes(silence_s: float) -> None:
    async def ask() -> Service:
        handle = FakeHandle()
        engine = engine_over(handle)
        assert await engine.service() == FACTS
        await listen(engine)
        handle.is_full = True
        handle.now += silence_s
        return await engine.service()

    if silence_s == 1.0:
        assert asyncio.run(ask()) == FACTS
    else:
        with pytest.raises(NotReadyError):
            asyncio.run(ask())
