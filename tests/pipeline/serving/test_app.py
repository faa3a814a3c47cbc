"""The HTTP interface over a counting engine: bodies, errors, streams; a real server for aborts."""

from __future__ import annotations

import io
import struct
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import httpx
import pytest
import soundfile
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from pipeline.serving.app import create_app
from pipeline.serving.engine import BatchEngine, Opening, Refusal
from pipeline.serving.formats import UNKNOWN_SIZE
from pipeline.serving.schemas import AudioJob
from pipeline.serving.settings import BatchSettings, ServeSettings
from pipeline.serving.stream import NotReadyError, Service
from tests.factories.serving import CHUNK_SAMPLES, LAYOUT, FakeWorker, Handle, audio


class LocalEngine:
    """A batch engine in this process, behind the interface of the endpoint."""

    def __init__(self, settings: BatchSettings | None = None, *, is_manual: bool = False) -> None:
        self.worker = FakeWorker(is_manual=is_manual)
        self.batch: BatchEngine[Handle] = BatchEngine(self.worker, settings or BatchSettings())
        self.jobs: list[AudioJob] = []
        self.is_ready = True

    async def generate(self, job: AudioJob) -> AsyncIterator[Opening | Refusal | bytes]:
        self.jobs.append(job)
        async for item in self.batch.generate(job):
            yield item

    async def service(self) -> Service:
        if not self.is_ready:
            raise NotReadyError("no replica answered in 5 s")
        return Service(LAYOUT, ("ada", "bob"), 192, "d1")


@pytest.fixture
def engine() -> Iterator[LocalEngine]:
    built = LocalEngine()
    yield built
    built.batch.close()


@pytest.fixture
def client(engine: LocalEngine) -> Iterator[TestClient]:
    with TestClient(create_app(engine, ServeSettings(bundle="b"))) as built:
        yield built


def post(client: TestClient, **body: object) -> httpx.Response:
    return client.post("/v1/audio/generate", json={"description": "rain", **body})


def test_a_streamed_wav_is_one_header_and_every_chunk(client: TestClient) -> None:
    response = post(client, duration_s=3, seed=5)
    assert response.status_code == 200
    assert response.headers["content-type"] == "audio/wav"
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["x-seed"] == "5"
    assert "content-length" not in response.headers
    assert response.content.count(b"RIFF") == 1
    assert struct.unpack_from("<I", response.content, 40) == (UNKNOWN_SIZE,)
    assert response.content[44:] == audio(5, 3)


def test_pcm_says_rate_and_channels(client: TestClient) -> None:
    response = post(client, duration_s=2, seed=5, response_format="pcm")
    assert response.content == audio(5, 2)
    assert response.headers["content-type"] == "audio/pcm; rate=8000; channels=2"
    assert response.headers["x-sample-rate"] == "8000"
    assert response.headers["x-channels"] == "2"


@pytest.mark.parametrize("audio_format", ["wav", "flac"])
def test_a_whole_answer_has_true_sizes(client: TestClient, audio_format: str) -> None:
    response = post(client, duration_s=2, response_format=audio_format, stream=False)
    assert int(response.headers["content-length"]) == len(response.content)
    samples, rate = soundfile.read(io.BytesIO(response.content))
    assert samples.shape == (2 * CHUNK_SAMPLES, 2)
    assert rate == 8000


def test_the_whole_request_reaches_the_engine(client: TestClient, engine: LocalEngine) -> None:
    body = {
        "description": "a choir",
        "transcript": "ah",
        "language": "pt-BR",
        "modality": "music",
        "duration_s": 2.0,
        "is_singing": True,
        "voice": "ada",
        "seed": 3,
        "num_flow_steps": 4,
        "guidance_scale": 1.5,
        "temperature": 0.25,
    }
    assert post(client, **body).status_code == 200
    sampling = {"num_flow_steps": 4, "guidance_scale": 1.5, "temperature": 0.25}
    expected = {k: v for k, v in body.items() if k not in sampling}
    assert engine.jobs == [AudioJob(**expected, sampling=sampling)]  # type: ignore[arg-type]


def test_a_seed_is_drawn_and_told(client: TestClient, engine: LocalEngine) -> None:
    seeds = [int(post(client).headers["x-seed"]) for _ in range(2)]
    assert [job.seed for job in engine.jobs] == seeds
    assert seeds[0] != seeds[1]


def speak(client: TestClient, **changes: object) -> httpx.Response:
    body = {"model": "tts-1", "input": "Good morning.", "voice": "alloy", **changes}
    return client.post("/v1/audio/speech", json=body)


def test_speech_as_other_clients_ask_for_it(client: TestClient, engine: LocalEngine) -> None:
    response = speak(client, instructions="An old man whispers.", response_format="pcm")
    assert response.status_code == 200
    (job,) = engine.jobs
    assert (job.description, job.transcript) == ("An old man whispers.", "Good morning.")
    assert (job.modality, job.voice) == ("speech", "default")


def test_speech_takes_a_voice_object_and_a_default_description(
    client: TestClient, engine: LocalEngine
) -> None:
    assert speak(client, voice={"id": "ada"}).status_code == 200
    assert engine.jobs[0].voice == "ada"
    assert engine.jobs[0].description == ServeSettings().speech_description


def error_of(response: httpx.Response) -> dict:
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return dict(body["error"])


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"description": None}, "description"),
        ({"duration": 3}, "duration"),
        ({"modality": "video"}, "modality"),
        ({"response_format": "mp3"}, "response_format"),
        ({"duration_s": "long"}, "duration_s"),
        ({"seed": -1}, "seed"),
        ({"language": "!"}, "language"),
        ({"voice_embedding": ["x"]}, "voice_embedding.0"),
        ({"response_format": "flac", "stream": True}, None),
        ({"voice": "ada", "voice_embedding": [1.0]}, None),
        ({"description": "refuse this"}, "description"),
    ],
)
def test_422_names_the_field(client: TestClient, body: dict, param: str | None) -> None:
    response = post(client, **body)
    assert response.status_code == 422
    error = error_of(response)
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert param is None or param in error["message"] or "refused" in error["message"]


def test_a_body_that_is_no_json_is_422(client: TestClient) -> None:
    response = client.post(
        "/v1/audio/generate", content="{", headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 422
    error = error_of(response)
    assert error["param"] is None
    assert error["message"] == "JSON decode error at character 1"


def test_a_wrong_method_is_told_the_right_one(client: TestClient) -> None:
    response = client.get("/v1/audio/generate")
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    error_of(response)


def test_what_nobody_foresaw_is_an_envelope_and_a_traceback_in_the_log(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> Service:
        raise KeyError("inner workings")

    monkeypatch.setattr(engine, "service", fail)
    app = create_app(engine, ServeSettings(bundle="b"))
    with TestClient(app, raise_server_exceptions=False) as client:
        response = client.get("/ready")
    assert response.status_code == 500
    error = error_of(response)
    assert (error["type"], error["code"]) == ("server_error", "internal_error")
    assert "inner workings" not in response.text
    (record,) = [record for record in caplog.records if record.name == "pipeline.serving.app"]
    assert record.getMessage() == "GET /ready failed"
    assert record.exc_info
    assert record.exc_info[0] is KeyError


@pytest.mark.parametrize(
    ("changes", "status", "param"),
    [
        ({"model": "whisper"}, 404, "model"),
        ({"speed": 1.5}, 422, "speed"),
        ({"speed": 9}, 422, "speed"),
        ({"response_format": "opus"}, 422, "response_format"),
        ({"stream_format": "sse"}, 422, "stream_format"),
        ({"input": None}, 422, "input"),
        ({"instructions": "refuse"}, 422, "instructions"),
    ],
)
def test_speech_errors_are_in_its_own_terms(
    client: TestClient, changes: dict, status: int, param: str
) -> None:
    response = speak(client, **changes)
    assert response.status_code == status
    assert error_of(response)["param"] == param


def test_a_break_before_the_first_chunk_is_an_honest_500(client: TestClient) -> None:
    response = post(client, description="break after 0", duration_s=3)
    assert response.status_code == 500
    assert error_of(response)["type"] == "server_error"


def test_a_break_in_a_whole_answer_is_an_honest_500(client: TestClient) -> None:
    response = post(client, description="break after 2", duration_s=9, stream=False)
    assert response.status_code == 500
    assert "broke" in error_of(response)["message"]


def test_lists_and_pages(client: TestClient) -> None:
    models = client.get("/v1/models").json()
    assert [model["id"] for model in models["data"]] == ["audiocalm"]
    voices = client.get("/v1/audio/voices").json()
    assert [voice["id"] for voice in voices["voices"]] == ["default", "ada", "bob"]
    assert (voices["speaker_dim"], voices["sample_rate"]) == (192, 8000)
    assert client.get("/health").json() == {"status": "ok"}
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "v1/audio/generate" in page.text
    assert "http://" not in page.text
    assert "https://" not in page.text


def test_an_unknown_path_is_an_error_envelope(client: TestClient) -> None:
    response = client.get("/v1/nothing")
    assert response.status_code == 404
    error_of(response)


def test_ready_follows_the_engine(client: TestClient, engine: LocalEngine) -> None:
    assert client.get("/ready").json() == {"status": "ready", "bundle": "d1"}
    engine.is_ready = False
    response = client.get("/ready")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "2"
    assert error_of(response)["code"] == "not_ready"


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The application on a real socket: only there is an abort an abort."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=60)


def test_a_break_after_the_first_byte_never_looks_finished(engine: LocalEngine) -> None:
    body = {"description": "break after 2", "duration_s": 9, "seed": 1}
    received = []
    with (
        served(create_app(engine, ServeSettings())) as url,
        httpx.stream("POST", f"{url}/v1/audio/generate", json=body) as response,
    ):
        assert response.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            received.extend(response.iter_raw())
    assert b"".join(received)[44:] == audio(1, 2)


def test_a_client_that_leaves_frees_its_slot() -> None:
    engine = LocalEngine(BatchSettings(max_batch=1, max_waiting=0), is_manual=True)
    body = {"description": "x", "duration_s": 10**6}
    try:
        with served(create_app(engine, ServeSettings())) as url:
            engine.worker.permits.release()
            with httpx.stream("POST", f"{url}/v1/audio/generate", json=body) as response:
                chunks = response.iter_raw()
                next(chunks)
                busy = httpx.post(f"{url}/v1/audio/generate", json=body)
                assert busy.status_code == 429
                assert busy.headers["retry-after"] == "2"
                assert error_of(busy)["type"] == "rate_limit_error"
            deadline = time.monotonic() + 60
            while engine.batch.stats()["running"]:
                assert time.monotonic() < deadline
                engine.worker.permits.release()
                time.sleep(0.005)
            assert engine.batch.stats()["cancelled"] == 1
    finally:
        for _ in range(100):
            engine.worker.permits.release()
        engine.batch.close()


def test_the_first_audio_is_sent_before_the_last_is_made() -> None:
    engine = LocalEngine(is_manual=True)
    try:
        with served(create_app(engine, ServeSettings())) as url:
            engine.worker.permits.release()
            body = {"description": "x", "duration_s": 3, "seed": 1}
            with httpx.stream("POST", f"{url}/v1/audio/generate", json=body) as response:
                chunks = response.iter_raw()
                assert next(chunks)[44:] == audio(1, 1)
                assert len(engine.worker.batches) == 1
                engine.worker.permits.release()
                engine.worker.permits.release()
                assert audio(1, 1) + b"".join(chunks) == audio(1, 3)
    finally:
        engine.batch.close()
