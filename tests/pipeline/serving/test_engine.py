"""Batching, lag, cancellation and failures of the worker thread, with a worker that counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import pytest

from pipeline.serving.answer import Ending, Refusal
from pipeline.serving.engine import GenerationFailedError
from tests.factories.engines import job, read, run, until
from tests.factories.serving import audio


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
        worker.release(9)
        assert await asyncio.gather(*tasks) == [audio(1, 4), audio(2, 4)]

    run(body())
    assert engine.stats()["largest_batch"] == 2
    assert [1, 2] in worker.batches


def test_a_request_joins_between_the_steps_of_another(build: Callable) -> None:
    engine, worker = build(is_manual=True)

    async def body() -> None:
        first = asyncio.create_task(read(engine.generate(job(seed=1, steps=6))))
        worker.release()
        await until(lambda: len(worker.batches) == 1)
        second = asyncio.create_task(read(engine.generate(job(seed=2, steps=2))))
        await until(lambda: engine.stats()["running"] + engine.stats()["waiting"] == 2)
        worker.release(20)
        await asyncio.gather(first, second)

    run(body())
    assert worker.batches[0] == [1]
    assert [1, 2] in worker.batches


def test_requests_beyond_the_memory_wait_in_order_and_keep_their_audio(build: Callable) -> None:
    engine, worker = build(is_manual=True, max_batch=4, max_waiting=1)
    worker.room = 2

    async def body() -> None:
        tasks = [asyncio.create_task(read(engine.generate(job(seed=s)))) for s in (1, 2, 3, 4, 5)]
        await until(lambda: engine.stats()["running"] + engine.stats()["waiting"] == 5)
        refusal = await anext(engine.generate(job(seed=6)))
        assert isinstance(refusal, Refusal)
        assert refusal.status == 429
        worker.free()
        assert await asyncio.gather(*tasks) == [audio(s, 3) for s in (1, 2, 3, 4, 5)]

    run(body())
    assert engine.stats()["largest_batch"] == 2
    first_steps = [seed for batch in worker.batches for seed in batch]
    assert sorted(dict.fromkeys(first_steps)) == list(dict.fromkeys(first_steps))


def test_a_request_that_waits_for_memory_is_not_stepped_before_another_ends(
    build: Callable,
) -> None:
    engine, worker = build(max_buffered=1)

    def num_steps(seed: int) -> int:
        return sum(batch.count(seed) for batch in worker.batches)

    async def body() -> None:
        async with aclosing(engine.generate(job(seed=1, steps=1000))) as slow:
            await anext(slow)
            long = asyncio.create_task(read(engine.generate(job(seed=2, description="waits"))))
            await until(lambda: num_steps(2) >= 2)
            await anext(slow)
            for _ in range(30):  # each chunk that is taken permits one more step
                await anext(slow)
            assert num_steps(1) >= 30
            # Its first step, and the one that found no memory.
            assert num_steps(2) == 2
        assert await long == audio(2, 3)
        assert num_steps(2) == 4

    run(body())


def test_a_full_engine_refuses_and_later_accepts(build: Callable) -> None:
    engine, worker = build(is_manual=True, max_batch=1, max_waiting=1)

    async def body() -> None:
        tasks = [asyncio.create_task(read(engine.generate(job(seed=s)))) for s in (1, 2)]
        await until(lambda: engine.stats()["running"] + engine.stats()["waiting"] == 2)
        refusal = await anext(engine.generate(job(seed=3)))
        assert isinstance(refusal, Refusal)
        assert refusal.status == 429
        worker.release(20)
        await asyncio.gather(*tasks)
        assert await read(engine.generate(job(seed=3))) == audio(3, 3)

    run(body())


def test_leaving_early_frees_the_slot_at_the_next_step(build: Callable) -> None:
    engine, worker = build(is_manual=True, max_batch=1, max_waiting=1)

    async def body() -> None:
        async with aclosing(engine.generate(job(seed=1, steps=1000))) as items:
            waiting = asyncio.create_task(read(engine.generate(job(seed=2, steps=1))))
            worker.release()
            await anext(items)
            await anext(items)
        steps_before = len(worker.batches)
        worker.release(5)
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
        worker.release()
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
            rest = b"".join([item async for item in slow if isinstance(item, bytes)])
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
        assert items == [Refusal(400, "is refused", "description")]
        assert await read(engine.generate(job(seed=2))) == audio(2, 3)

    run(body())


def test_speech_that_was_capped_says_so_at_its_end(build: Callable) -> None:
    engine, _ = build()

    async def body() -> None:
        items = [item async for item in engine.generate(job(description="capped"))]
        assert items[-1] == Ending(is_capped=True)

    run(body())


def test_closing_ends_running_requests_and_refuses_new_ones(build: Callable) -> None:
    engine, worker = build(is_manual=True)

    async def body() -> None:
        task = asyncio.create_task(read(engine.generate(job(steps=10**6))))
        worker.release()
        await until(lambda: len(worker.batches) == 1)
        closing = asyncio.create_task(asyncio.to_thread(engine.close))
        while not closing.done():
            worker.release()
            await asyncio.sleep(0.001)
        with pytest.raises(GenerationFailedError, match="ended"):
            await task
        (refusal,) = [item async for item in engine.generate(job())]
        assert isinstance(refusal, Refusal)
        assert refusal.status == 503
        with pytest.raises(GenerationFailedError, match="thread has ended"):
            engine.check_health()

    run(body())
