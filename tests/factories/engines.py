"""Reading answers of a batch engine, with a limit of time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from pipeline.serving.answer import Ending, Item, Opening
from pipeline.serving.schemas import AudioJob
from tests.factories.serving import DIGEST, LAYOUT


def job(seed: int = 1, steps: int = 3, description: str = "x") -> AudioJob:
    return AudioJob(description=description, seed=seed, duration_s=steps)


async def read(items: AsyncIterator[Item]) -> bytes:
    opening = await anext(items)
    assert opening == Opening(LAYOUT, DIGEST)
    *chunks, ending = [item async for item in items]
    assert ending == Ending()
    return b"".join(chunks)  # type: ignore[arg-type]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # the limit of `run` ends it
        await asyncio.sleep(0.002)


def run(body: Awaitable[None]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(body, 300)

    asyncio.run(limited())
