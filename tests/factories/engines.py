"""Reading answers of a batch engine, with a limit of time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from pipeline.serving.answer import Ending, Item, Opening
from pipeline.serving.schemas import AudioJob
from tests.factories.serving import LAYOUT


def job(seed: int = 1, steps: int = 3, description: str = "x") -> AudioJob:
    return AudioJob(description=description, seed=seed, duration_s=steps)


async def read(items: AsyncIterator[Item]) -> bytes:
    opening = await anext(items)
    assert opening == Opening(LAYOUT)
    *chunks, ending = [item async for item in items]
    assert ending == Ending()
    return b"".join(chunks)  # type: ignore[arg-type]


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        await asyncio.sleep(0.002)


def run(body: Awaitable[None]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(body, 120)

    asyncio.run(limited())
