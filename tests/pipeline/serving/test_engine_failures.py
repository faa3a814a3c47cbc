"""What fails costs its own request: opening, steps, closing, and the device as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import pytest

from pipeline.serving.answer import Refusal, Step
from pipeline.serving.engine import GenerationFailedError
from tests.factories.engines import job, read, run, until
from tests.factories.serving import FakeWorker, Handle, audio, chunk


@pytest.mark.parametrize("words", ["explode", "overflow", "panic"])
def test_a_request_that_cannot_be_opened_fails_alone(
    build: Callable, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine, _ = build()

    async def body() -> None:
        other = asyncio.create_task(read(engine.generate(job(seed=9, steps=20))))
        for _ in range(4):
            (item,) = [item async for item in engine.generate(job(description=words))]
            assert isinstance(item, Refusal)
            assert (item.status, item.code) == (500, "generation_failed")
            # The client gets a number, the log what it stands for.
            number = item.message.split()[-1]
            (record,) = [r for r in caplog.records if number in r.getMessage()]
            assert record.exc_info
            assert "memory" not in item.message
            engine.check_health()
        assert await other == audio(9, 20)
        assert await read(engine.generate(job(seed=2))) == audio(2, 3)

    run(body())


@pytest.mark.parametrize("num_steps", [0, 1, 7])
def test_a_request_that_breaks_a_step_fails_alone(build: Callable, num_steps: int) -> None:
    """The others are generated once more, and their readers hear every chunk once."""
    engine, worker = build(is_manual=True)

    async def body() -> None:
        others = [
            asyncio.create_task(read(engine.generate(job(seed=seed, steps=20))))
            for seed in (1, 2, 3)
        ]
        bad = job(seed=4, steps=20, description=f"poison after {num_steps}")
        heard = []

        async def hear() -> None:
            async for item in engine.generate(bad):
                heard.append(item)

        hearing = asyncio.create_task(hear())
        await until(lambda: len(engine._readers) == 4)
        worker.free()
        if num_steps:
            with pytest.raises(GenerationFailedError, match="as error"):
                await hearing
            assert heard[1:] == [chunk(4, step + 1) for step in range(num_steps)]
        else:
            await hearing
            assert [type(item) for item in heard] == [Refusal]
        for seed, other in zip((1, 2, 3), others, strict=True):
            assert await other == audio(seed, 20)
        engine.check_health()

    run(body())
    assert any(len(batch) == 3 for batch in worker.batches)
    assert engine.stats()["running"] == 0


def test_a_cancelled_request_is_not_generated_anew(build: Callable) -> None:
    engine, worker = build(is_manual=True)

    async def body() -> None:
        left = asyncio.create_task(read(engine.generate(job(seed=1, steps=50))))
        bad = asyncio.create_task(read(engine.generate(job(seed=2, description="poison after 1"))))
        await until(lambda: len(engine._readers) == 2)
        while [1, 2] not in worker.batches:
            worker.release()
            await asyncio.sleep(0.002)
        left.cancel()
        await until(lambda: engine.stats()["cancelled"] == 1)
        worker.free()
        with pytest.raises(GenerationFailedError):
            await bad
        assert await read(engine.generate(job(seed=3))) == audio(3, 3)

    run(body())
    assert engine.stats()["running"] == 0


def test_a_batch_that_keeps_failing_ends(build: Callable) -> None:
    engine, worker = build(is_manual=True, max_buffered=1000)

    def step(handles: list[Handle]) -> list[Step]:
        if len(handles) > 1:
            raise MemoryError("too many at a time")
        return FakeWorker.step(worker, handles)

    worker.step = step

    async def body() -> None:
        jobs = [job(seed=seed, steps=200) for seed in (1, 2)]
        reads = [asyncio.create_task(read(engine.generate(one))) for one in jobs]
        await until(lambda: len(engine._readers) == 2)
        worker.free()
        results = await asyncio.gather(*reads, return_exceptions=True)
        assert any(isinstance(result, GenerationFailedError) for result in results)
        assert await read(engine.generate(job(seed=3))) == audio(3, 3)

    run(body())


def test_a_turn_that_breaks_down_fails_who_is_there_and_the_thread_goes_on(
    build: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, _ = build()
    plan = engine._scheduler.plan
    faults = [KeyError("a fault of our own")]

    def broken() -> object:
        if faults:
            raise faults.pop()
        return plan()

    monkeypatch.setattr(engine._scheduler, "plan", broken)

    async def body() -> None:
        (item,) = [item async for item in engine.generate(job())]
        assert isinstance(item, Refusal)
        assert item.status == 500
        assert await read(engine.generate(job(seed=2))) == audio(2, 3)

    run(body())


def test_a_request_that_cannot_be_closed_ends_all_the_same(build: Callable) -> None:
    engine, worker = build()

    def close(_: Handle) -> None:
        raise ValueError("closed twice")

    worker.close = close

    async def body() -> None:
        assert await read(engine.generate(job(seed=2))) == audio(2, 3)
        assert await read(engine.generate(job(seed=3))) == audio(3, 3)

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
        assert items == [Refusal(500, "broke", code="generation_failed")]

    run(body())


def test_failures_in_a_row_are_the_fault_of_the_requests_while_the_device_works(
    build: Callable,
) -> None:
    engine, worker = build()

    async def fail() -> None:
        (item,) = [i async for i in engine.generate(job(description="sink the batch"))]
        assert isinstance(item, Refusal)
        assert "device lost" not in item.message

    async def body() -> None:
        for _ in range(5):
            await fail()
            engine.check_health()
        worker.is_broken = True
        for _ in range(3):
            await fail()
        await until(lambda: engine._is_broken)
        with pytest.raises(GenerationFailedError, match="steps in a row failed"):
            engine.check_health()
        worker.is_broken = False
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

    def is_stuck() -> bool:
        try:
            engine.check_health()
        except GenerationFailedError as error:
            return "a step takes over" in str(error)
        return False

    async def body() -> None:
        task = asyncio.create_task(read(engine.generate(job(steps=1))))
        await until(is_stuck)
        worker.release()
        await task
        await until(lambda: engine.stats()["finished"] == 1)

    run(body())
