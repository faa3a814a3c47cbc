"""What the ingress knows of its replicas, over a handle that answers as told; no Ray."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from ray.serve.exceptions import BackPressureError

from pipeline.serving.engine import Opening
from pipeline.serving.replica import HandleEngine
from pipeline.serving.schemas import AudioJob
from pipeline.serving.stream import NotReadyError, Service
from tests.factories.serving import LAYOUT

FACTS = Service(LAYOUT, ("ada",), 4, "digest")


class FakeHandle:
    """A deployment handle; `is_full` refuses calls for facts, streams go on."""

    def __init__(self) -> None:
        self.is_full = False
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
        return FACTS

    async def _items(self) -> AsyncIterator[Opening | bytes]:
        yield Opening(LAYOUT)


def engine_over(handle: FakeHandle) -> HandleEngine:
    return HandleEngine(handle, clock=lambda: handle.now)  # type: ignore[arg-type]  # a fake


async def listen(engine: HandleEngine) -> None:
    async for _ in engine.generate(AudioJob(description="rain")):
        pass


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
