"""The HTTP interface over a counting engine: bodies, headers, lists and pages."""

from __future__ import annotations

import io
import struct

import pytest
import soundfile
from fastapi.testclient import TestClient

from pipeline.serving.formats import UNKNOWN_SIZE
from pipeline.serving.schemas import AudioJob
from pipeline.serving.settings import ServeSettings
from tests.factories.http import error_of, post, speak
from tests.factories.serving import CHUNK_SAMPLES, LocalEngine, audio


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


def test_lists_and_pages(client: TestClient) -> None:
    models = client.get("/v1/models").json()
    assert [model["id"] for model in models["data"]] == ["audiocalm"]
    voices = client.get("/v1/audio/voices").json()
    assert [voice["id"] for voice in voices["voices"]] == ["default", "ada", "bob"]
    assert voices["voices"][1]["description"] == "A woman speaks."
    assert (voices["speaker_dim"], voices["sample_rate"]) == (192, 8000)
    assert client.get("/health").json() == {"status": "ok"}
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "v1/audio/generate" in page.text
    assert "http://" not in page.text
    assert "https://" not in page.text


def test_ready_follows_the_engine(client: TestClient, engine: LocalEngine) -> None:
    assert client.get("/ready").json() == {"status": "ready", "bundle": "d1"}
    engine.is_ready = False
    response = client.get("/ready")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "2"
    assert error_of(response)["code"] == "not_ready"
