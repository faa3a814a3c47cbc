"""Streams that break, end with their time or lose their reader; a real server for aborts."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest
from fastapi.testclient import TestClient

from pipeline.serving.answer import Item, Opening, Step
from pipeline.serving.app import create_app
from pipeline.serving.engine import GenerationFailedError
from pipeline.serving.errors import ApiError
from pipeline.serving.schemas import AudioJob
from pipeline.serving.settings import BatchSettings, ServeSettings
from pipeline.serving.stream import Service, SlowClientError
from tests.factories.engines import run, until
from tests.factories.http import call, error_of, post, served
from tests.factories.serving import DIGEST, LAYOUT, FakeWorker, Handle, LocalEngine, audio, pcm_in


def message() -> dict:
    """The body of a request whose audio takes very long."""
    body = b'{"description": "for 1000000 steps"}'
    return {"type": "http.request", "body": body, "more_body": False}


def test_a_break_before_the_first_chunk_is_an_honest_500(client: TestClient) -> None:
    response = post(client, description="break after 0", seconds=3)
    assert response.status_code == 500
    assert error_of(response)["type"] == "server_error"


def test_a_break_in_a_whole_answer_is_an_honest_500(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    response = post(client, description="break after 2", seconds=9, stream=False)
    assert response.status_code == 500
    error = error_of(response)
    assert error["code"] == "generation_failed"
    assert error["message"].split()[-1] in caplog.text


def test_a_cap_is_reported_if_the_end_is_known(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    whole = post(client, description="capped", stream=False)
    assert whole.headers["x-capped"] == "true"
    assert "x-capped" not in post(client, stream=False).headers
    caplog.clear()
    assert post(client, description="capped").status_code == 200
    assert "reached its longest duration" in caplog.text


def test_a_break_after_the_first_byte_never_looks_finished(engine: LocalEngine) -> None:
    body = {"description": "break after 2", "seconds": 9, "seed": 1}
    received = []
    with (
        served(create_app(engine, ServeSettings())) as url,
        httpx.stream("POST", f"{url}/v1/audio/generations", json=body, timeout=None) as response,
    ):
        assert response.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            received.extend(response.iter_raw())
    assert pcm_in(b"".join(received)) == audio(1, 2)


def test_a_client_that_leaves_frees_its_slot() -> None:
    body = {"description": "for 1000000 steps"}
    with (
        LocalEngine(BatchSettings(max_batch=1, max_waiting=0), is_manual=True) as engine,
        served(create_app(engine, ServeSettings())) as url,
    ):
        engine.worker.release()
        with httpx.stream(
            "POST", f"{url}/v1/audio/generations", json=body, timeout=None
        ) as response:
            chunks = response.iter_raw()  # dropping it would close the connection
            next(chunks)
            busy = httpx.post(f"{url}/v1/audio/generations", json=body, timeout=None)
            assert busy.status_code == 429
            assert busy.headers["retry-after"] == "2"
            assert error_of(busy)["type"] == "rate_limit_error"
        while engine.batch.stats()["running"]:
            engine.worker.release()
            time.sleep(0.005)
        assert engine.batch.stats()["cancelled"] == 1


@pytest.mark.parametrize("is_streamed", [True, False])
def test_a_request_without_audio_in_its_time_is_504_and_frees_its_slot(is_streamed: bool) -> None:
    with LocalEngine(is_manual=True) as engine:
        settings = ServeSettings(request_timeout_s=0.05)
        with TestClient(create_app(engine, settings)) as client:
            response = post(client, seconds=9, stream=is_streamed)
            assert response.status_code == 504
            assert error_of(response)["code"] == "timeout"
            assert "no audio within 0.05 s" in error_of(response)["message"]
        assert engine.batch.stats()["cancelled"] == 1


def test_a_stream_ends_with_its_time() -> None:
    """Unfinished, since the audio is not complete."""
    sent: list[dict] = []
    with LocalEngine(is_manual=True) as engine:
        app = create_app(engine, ServeSettings(request_timeout_s=60.0))

        async def listen() -> None:
            loop = asyncio.get_running_loop()
            clock = loop.time
            engine.worker.release()
            asked = asyncio.create_task(call(app, [message()], sent, is_stuck=False))
            await until(lambda: any(part.get("body") for part in sent))
            loop.time = lambda: clock() + 61  # type: ignore[method-assign]  # a minute passes
            with pytest.raises(RuntimeError, match="already started") as caught:
                await asked
            assert isinstance(caught.value.__cause__, ApiError)
            assert caught.value.__cause__.status == 504

        run(listen())
        assert engine.batch.stats()["cancelled"] == 1
    assert sent[0]["status"] == 200
    assert all(part.get("more_body", True) for part in sent)


def test_a_client_that_stops_reading_frees_its_slot(engine: LocalEngine) -> None:
    app = create_app(engine, ServeSettings(client_timeout_s=0.05))
    sent: list[dict] = []
    with pytest.raises(SlowClientError, match=r"took no audio for 0\.05 s"):
        asyncio.run(call(app, [message()], sent, is_stuck=True))
    assert engine.batch.stats()["cancelled"] == 1
    # What never ends is no complete answer.
    assert all(part.get("more_body", True) for part in sent)


def test_the_first_audio_is_sent_before_the_last_is_made() -> None:
    with (
        LocalEngine(is_manual=True) as engine,
        served(create_app(engine, ServeSettings())) as url,
    ):
        engine.worker.release()
        body = {"description": "x", "seconds": 3, "seed": 1}
        with httpx.stream(
            "POST", f"{url}/v1/audio/generations", json=body, timeout=None
        ) as response:
            chunks = response.iter_raw()
            assert pcm_in(next(chunks)) == audio(1, 1)
            assert len(engine.worker.batches) == 1
            engine.worker.release(2)
            assert audio(1, 1) + b"".join(chunks) == audio(1, 3)


class LongWorker(FakeWorker):
    """Makes ten seconds of audio a step."""

    def _step(self, handle: Handle) -> Step:
        step = super()._step(handle)
        return replace(step, samples=bytes(10 * 4 * LAYOUT.sample_rate))


def test_a_chapter_of_20000_characters_streams_in_little_memory() -> None:
    limits = {"max_transcript_chars": 20_000, "max_speech_s": 1500}
    settings = ServeSettings.model_validate({"limits": limits})
    chapter = "The ferry leaves at seven. " * 740
    num_steps = 136
    engine = LocalEngine(BatchSettings(max_buffered=2), worker=LongWorker())
    body = {"model": "tts-1", "input": chapter, "response_format": "wav"}
    body |= {"instructions": f"for {num_steps} steps"}
    num_bytes = 0
    with engine, served(create_app(engine, settings)) as url:
        tracemalloc.start()
        try:
            with httpx.stream("POST", f"{url}/v1/audio/speech", json=body, timeout=None) as answer:
                assert answer.status_code == 200
                for chunk in answer.iter_raw():
                    num_bytes += len(chunk)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert len(chapter) == 19_980
    assert num_bytes > num_steps * 10 * 4 * LAYOUT.sample_rate
    assert peak_bytes < num_bytes / 4, "chunks are kept"


class BreakingEngine:
    """Gives one chunk and breaks down."""

    async def generate(self, job: AudioJob) -> AsyncIterator[Item]:
        yield Opening(LAYOUT, DIGEST)
        yield audio(1, 1)
        raise GenerationFailedError("device lost")

    async def service(self) -> Service:
        raise NotImplementedError


def test_events_that_break_off_say_so_and_do_not_end() -> None:
    body = {"model": "tts-1", "input": "Hi.", "stream_format": "sse", "response_format": "wav"}
    received = []
    with (
        served(create_app(BreakingEngine(), ServeSettings())) as url,
        httpx.stream("POST", f"{url}/v1/audio/speech", json=body, timeout=None) as response,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        received.extend(response.iter_raw())
    text = b"".join(received).decode()
    assert "speech.audio.delta" in text
    assert '"code":"generation_failed"' in text
    assert "device lost" not in text
    assert "speech.audio.done" not in text
    assert "DONE" not in text
