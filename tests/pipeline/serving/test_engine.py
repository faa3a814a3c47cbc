"""Batching, lag, cancellation and failures of the worker thread, with a worker that counts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing

import pytest

from pipeline.serving.engine import BatchEngine, GenerationFailedError, Opening, Refusal
from pipeline.serving.schemas import AudioJob
from pipeline.serving.settings import BatchSettings
from tests.factories.serving import LAYOUT, FakeWorker, Handle, audio

Engine = BatchEngine[Handle]


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
        for _ in range(1000):
            worker.permits.release()
        engine.close()


def job(seed: int = 1, steps: int = 3, description: str = "x") -> AudioJob:
    return AudioJob(description=description, seed=seed, duration_s=steps)


async def read(items: AsyncIterator[Opening | Refusal | bytes]) -> bytes:
    opening = await anext(items)
    assert opening == Opening(LAYOUT)
    return b"".join([item async for item in items])  # type: ignore[misc]


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        await asyncio.sleep(0.002)


def run(body: Awaitable[None]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(body, 120)

    asyncio.run(limited())


def test_chunks_come_in_order_and_end(build: Callable) -> None:
    engine, _ = build()

    async def body() -> None:
        assert await read(engine.generate(job(seed=4, steps=5))) == audio(4, 5)

    run(body())
    assert engine.stats()["finished"] == 1
    assert engine.stats()["cancelled"] == 0


def test_concurrent_requests_share_steps_and_keep_their_audio(build: Callable) -> None:
    engine, worker = build(is_manual=True)

    async def body() -> None:
        tasks = [asyncio.create_task(read(engine.generate(job(seed=s, steps=4)))) for s in (1, 2)]
        await until(lambda: engine.stats()["running"] + engine.stats()["waiting"] == 2)
        for _ in range(9):
            worker.permits.release()
        assert await asyncio.gather(*tasks) == [audio(1, 4), audio(2, 4)]

    run(body())
    assert engine.stats()["largest_batch"] == 2
    assert [1, 2] in worker.batches


def test_a_request_joins_between_the_steps_of_another(build: Callable) -> None:
    engine, worker = build(is_manual=True)

    async def body() -> None:
        first = asyncio.create_task(read(engine.generate(job(seed=1, steps=6))))
        worker.permits.release()
        await until(lambda: len(worker.batches) == 1)
        second = asyncio.create_task(read(engine.generate(job(seed=2, steps=2))))
        await until(lambda: engine.stats()["running"] + engine.stats()["waiting"] == 2)
        for _ in range(20):
            worker.permits.release()
        await asyncio.gather(first, second)

    run(body())
    assert worker.batches[0] == [1]
    assert [1, 2] in worker.batches


def test_a_full_engine_refuses_and_later_accepts(build: Callable) -> None:
    engine, worker = build(is_manual=True, max_batch=1, max_waiting=1)

    async def body() -> None:
        tasks = [asyncio.create_task(read(engine.generate(job(seed=s)))) for s in (1, 2)]
        await until(lambda: engine.stats()["running"] + engine.stats()["waiting"] == 2)
        refusal = await anext(engine.generate(job(seed=3)))
        assert isinstance(refusal, Refusal)
        assert refusal.status == 429
        for _ in range(20):
            worker.permits.release()
        await asyncio.gather(*tasks)
        assert await read(engine.generate(job(seed=3))) == audio(3, 3)

    run(body())


def test_leaving_early_frees_the_slot_at_the_next_step(build: Callable) -> None:
    engine, worker = build(is_manual=True, max_batch=1, max_waiting=1)

    async def body() -> None:
        async with aclosing(engine.generate(job(seed=1, steps=1000))) as items:
            waiting = asyncio.create_task(read(engine.generate(job(seed=2, steps=1))))
            worker.permits.release()
            await anext(items)
            await anext(items)
        steps_before = len(worker.batches)
        for _ in range(5):
            worker.permits.release()
        assert await waiting == audio(2, 1)
        # One step of the left request may have been under way already.
        assert [1] not in worker.batches[steps_before + 1 :]

    run(body())
    assert engine.stats()["cancelled"] == 1
    assert engine.stats()["running"] == 0


def test_a_cancelled_task_frees_the_slot(build: Callable) -> None:
    engine, worker = build(is_manual=True)

    async def body() -> None:
        task = asyncio.create_task(read(engine.generate(job(steps=1000))))
        await until(lambda: engine.stats()["running"] == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        worker.permits.release()
        await until(lambda: engine.stats()["running"] == 0)

    run(body())
    assert engine.stats()["cancelled"] == 1


def test_a_slow_reader_is_paused_and_others_are_not(build: Callable) -> None:
    engine, worker = build(max_buffered=2)

    async def body() -> None:
        async with aclosing(engine.generate(job(seed=1, steps=50))) as slow:
            await anext(slow)
            await until(lambda: sum(batch.count(1) for batch in worker.batches) >= 2)
            assert await read(engine.generate(job(seed=2, steps=30))) == audio(2, 30)
            assert sum(batch.count(1) for batch in worker.batches) == 2
            rest = b"".join([item async for item in slow])  # type: ignore[misc]
        assert rest == audio(1, 50)

    run(body())


def test_a_step_without_audio_sends_no_chunk(build: Callable) -> None:
    engine, _ = build()

    async def body() -> None:
        samples = await read(engine.generate(job(seed=5, steps=2, description="silent start")))
        assert samples == audio(5, 2)[len(audio(5, 1)) :]

    run(body())


def test_a_refused_request_names_the_field(build: Callable) -> None:
    engine, _ = build()

    async def body() -> None:
        items = [item async for item in engine.generate(job(description="refuse me"))]
        assert items == [Refusal(422, "is refused", "description")]
        assert await read(engine.generate(job(seed=2))) == audio(2, 3)

    run(body())


def test_a_request_that_cannot_be_opened_fails_alone(build: Callable) -> None:
    engine, _ = build()

    async def body() -> None:
        (item,) = [item async for item in engine.generate(job(description="explode"))]
        assert isinstance(item, Refusal)
        assert item.status == 500
        assert await read(engine.generate(job(seed=2))) == audio(2, 3)

    run(body())


def test_a_break_after_the_first_chunk_raises(build: Callable) -> None:
    engine, _ = build()

    async def body() -> None:
        other = asyncio.create_task(read(engine.generate(job(seed=9, steps=20))))
        with pytest.raises(GenerationFailedError, match="broke"):
            await read(engine.generate(job(steps=9, description="break after 2")))
        assert await other == audio(9, 20)

    run(body())


def test_a_break_before_the_first_chunk_is_a_refusal(build: Callable) -> None:
    engine, _ = build()

    async def body() -> None:
        items = [item async for item in engine.generate(job(description="break after 0"))]
        assert items == [Refusal(500, "broke")]

    run(body())


def test_a_failed_step_fails_its_requests_and_three_make_it_unhealthy(build: Callable) -> None:
    engine, _ = build()

    async def body() -> None:
        for _ in range(3):
            engine.check_health()
            (item,) = [i async for i in engine.generate(job(description="sink the batch"))]
            assert isinstance(item, Refusal)
        with pytest.raises(GenerationFailedError, match="3 steps in a row failed"):
            engine.check_health()
        await read(engine.generate(job()))
        engine.check_health()

    run(body())


def test_what_a_request_holds_is_freed_once_however_it_ends(build: Callable) -> None:
    engine, worker = build()

    async def body() -> None:
        await read(engine.generate(job(seed=1)))
        async with aclosing(engine.generate(job(seed=2, steps=1000))) as items:
            await anext(items)
        for seed, words in ((3, "break after 0"), (4, "sink the batch")):
            (item,) = [i async for i in engine.generate(job(seed=seed, description=words))]
            assert isinstance(item, Refusal)
        await until(lambda: len(worker.closed) == 4)

    run(body())
    assert sorted(worker.closed) == [1, 2, 3, 4]


def test_a_stuck_step_is_unhealthy(build: Callable) -> None:
    engine, worker = build(is_manual=True, stall_timeout_s=0.05)

    async def body() -> None:
        task = asyncio.create_task(read(engine.generate(job(steps=1))))
        await until(lambda: engine.stats()["running"] == 1)
        await asyncio.sleep(0.1)
        with pytest.raises(GenerationFailedError, match="a step takes over"):
            engine.check_health()
        worker.permits.release()
        await task
        await until(lambda: engine.stats()["finished"] == 1)

    run(body())


def test_closing_ends_running_requests_and_refuses_new_ones(build: Callable) -> None:
    engine, worker = build(is_manual=True)

    async def body() -> None:
        task = asyncio.create_task(read(engine.generate(job(steps=10**6))))
        worker.permits.release()
        await until(lambda: len(worker.batches) == 1)
        closing = asyncio.create_task(asyncio.to_thread(engine.close))
        while not closing.done():
            worker.permits.release()
            await asyncio.sleep(0.001)
        with pytest.raises(GenerationFailedError, match="ended"):
            await task
        (refusal,) = [item async for item in engine.generate(job())]
        assert isinstance(refusal, Refusal)
        assert refusal.status == 503
        with pytest.raises(GenerationFailedError, match="thread has ended"):
            engine.check_health()

    run(body())
