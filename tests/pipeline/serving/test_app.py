"""The HTTP interface over a counting engine: bodies, headers, lists and pages."""

from __future__ import annotations

import base64
import io
import json
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import av
import numpy as np
import pytest
import soundfile
from fastapi.testclient import TestClient

from pipeline.serving.answer import Ending, Item, Opening, Usage
from pipeline.serving.app import create_app
from pipeline.serving.formats import UNKNOWN_SIZE, pcm_bytes
from pipeline.serving.schemas import AudioJob
from pipeline.serving.settings import ServeSettings
from pipeline.serving.stream import Service
from tests.factories.http import error_of, post, speak
from tests.factories.serving import CHUNK_SAMPLES, DIGEST, LAYOUT, LocalEngine, audio, pcm_in


def test_a_streamed_wav_is_one_header_and_every_chunk(client: TestClient) -> None:
    response = post(client, seconds=3, seed=5)
    assert response.status_code == 200
    assert response.headers["content-type"] == "audio/wav"
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["x-seed"] == "5"
    assert "content-length" not in response.headers
    assert response.content.count(b"RIFF") == 1
    size_at = response.content.index(b"data") + 4
    assert struct.unpack_from("<I", response.content, size_at) == (UNKNOWN_SIZE,)
    assert pcm_in(response.content) == audio(5, 3)


def test_pcm_says_rate_and_channels(client: TestClient) -> None:
    response = post(client, seconds=2, seed=5, response_format="pcm")
    assert response.content == audio(5, 2)
    assert response.headers["content-type"] == "audio/pcm; rate=8000; channels=2"
    assert response.headers["x-sample-rate"] == "8000"
    assert response.headers["x-channels"] == "2"


def test_a_model_that_is_not_served_is_404(client: TestClient) -> None:
    response = client.get("/v1/models/whisper")
    assert response.status_code == 404
    assert error_of(response)["code"] == "model_not_found"


@pytest.mark.parametrize("audio_format", ["wav", "flac"])
def test_a_whole_answer_has_true_sizes(client: TestClient, audio_format: str) -> None:
    response = post(client, seconds=2, response_format=audio_format, stream=False)
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
        "seconds": 2.0,
        "is_singing": True,
        "voice": "ada",
        "seed": 3,
        "num_flow_steps": 4,
        "guidance_scale": 1.5,
        "temperature": 0.25,
    }
    assert post(client, **body).status_code == 200
    sampling = {"num_flow_steps": 4, "guidance_scale": 1.5, "temperature": 0.25}
    expected = {k: v for k, v in body.items() if k not in (*sampling, "seconds")}
    expected["duration_s"] = 2.0
    assert engine.jobs == [AudioJob(**expected, sampling=sampling)]  # type: ignore[arg-type]


def test_a_seed_is_drawn_and_reported(client: TestClient, engine: LocalEngine) -> None:
    seeds = [int(post(client).headers["x-seed"]) for _ in range(2)]
    assert [job.seed for job in engine.jobs] == seeds
    assert seeds[0] != seeds[1]


def test_speech_as_other_clients_ask_for_it(client: TestClient, engine: LocalEngine) -> None:
    response = speak(client, instructions="An old man whispers.", speed=1.5)
    assert response.status_code == 200
    (job,) = engine.jobs
    assert (job.description, job.transcript) == ("An old man whispers.", "Good morning.")
    assert (job.modality, job.voice, job.speed) == ("speech", "alloy", 1.5)


def test_speech_takes_a_voice_object_and_a_default_description(
    client: TestClient, engine: LocalEngine
) -> None:
    assert speak(client, voice={"id": "ada"}).status_code == 200
    assert engine.jobs[0].voice == "ada"
    assert engine.jobs[0].description == ServeSettings().speech_description
    assert not engine.jobs[0].is_described


def test_an_ingress_starts_without_torch() -> None:
    code = "import sys, pipeline.serving.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_lists(client: TestClient) -> None:
    models = client.get("/v1/models").json()
    names = ["audiocalm", "tts-1", "tts-1-hd", "gpt-4o-mini-tts"]
    assert [model["id"] for model in models["data"]] == names
    assert {model["root"] for model in models["data"]} == {"audiocalm"}
    assert client.get("/v1/models/tts-1").json() == models["data"][1]
    audio_models = client.get("/v1/audio/models").json()
    assert [model["id"] for model in audio_models["models"]] == names
    voices = client.get("/v1/audio/voices").json()
    assert [voice["id"] for voice in voices["voices"]] == ["default", "ada", "bob", "alloy"]
    assert voices["voices"][1]["description"] == "A woman speaks."
    assert voices["voices"][-1]["name"] == "alloy (ada)"
    assert (voices["speaker_dim"], voices["sample_rate"]) == (192, 8000)
    assert client.get("/health").json() == {"status": "ok"}


def test_ready_follows_the_engine(client: TestClient, engine: LocalEngine) -> None:
    assert client.get("/ready").json() == {"status": "ready", "bundle": "d1"}
    engine.is_ready = False
    response = client.get("/ready")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "2"
    assert error_of(response)["code"] == "not_ready"


class ToneEngine:
    """A second of a tone in ten chunks, of a model that does not know the speaking rate."""

    async def generate(self, job: AudioJob) -> AsyncIterator[Item]:
        yield Opening(LAYOUT, DIGEST, job.speed)
        for start in range(0, LAYOUT.sample_rate, LAYOUT.sample_rate // 10):
            times = np.arange(start, start + LAYOUT.sample_rate // 10) / LAYOUT.sample_rate
            tone = 0.5 * np.sin(2 * np.pi * 440 * times)
            yield pcm_bytes(np.stack([tone] * LAYOUT.num_channels))
        yield Ending()

    async def service(self) -> Service:
        raise NotImplementedError


@pytest.fixture(scope="module")
def tone_client() -> Iterator[TestClient]:
    with TestClient(create_app(ToneEngine(), ServeSettings())) as built:
        yield built


@pytest.mark.parametrize("is_streamed", [True, False])
@pytest.mark.parametrize("audio_format", ["mp3", "opus", "aac", "flac", "wav"])
def test_speech_in_every_format(
    tone_client: TestClient, audio_format: str, is_streamed: bool
) -> None:
    response = speak(tone_client, response_format=audio_format, stream=is_streamed)
    assert response.status_code == 200
    assert ("content-length" in response.headers) is not is_streamed
    with av.open(io.BytesIO(response.content)) as file:
        rate = file.streams.audio[0].rate
        num_samples = sum(frame.samples for frame in file.decode(audio=0))
    # MP3 and AAC add the delay and padding of their encoders at 8 kHz.
    assert 1.0 <= num_samples / rate <= 1.3


@pytest.mark.parametrize("speed", [0.5, 2.0])
def test_speed_that_the_model_leaves_is_stretched(tone_client: TestClient, speed: float) -> None:
    response = speak(tone_client, response_format="wav", speed=speed, stream=False)
    assert LAYOUT.duration_s(len(pcm_in(response.content))) == pytest.approx(1 / speed, abs=0.1)


def test_raw_speech_has_the_layout_that_clients_of_openai_expect(tone_client: TestClient) -> None:
    response = speak(tone_client, response_format="pcm", stream=False)
    assert response.headers["content-type"] == "audio/pcm; rate=24000; channels=1"
    assert len(response.content) == 2 * 24_000


def test_speech_is_mp3_where_nothing_else_is_asked(client: TestClient) -> None:
    assert speak(client).headers["content-type"] == "audio/mpeg"


def test_events_carry_the_audio_and_end_with_what_it_cost(
    client: TestClient, engine: LocalEngine
) -> None:
    engine.worker.usage = Usage(7, 1)
    plain = speak(client, response_format="wav", seed=1).content
    response = speak(client, response_format="wav", seed=1, stream_format="sse")
    assert response.headers["content-type"].startswith("text/event-stream")
    *deltas, done, end = [part for part in response.text.split("\n\n") if part]
    assert end == "data: [DONE]"
    assert json.loads(done.removeprefix("data: ")) == {
        "type": "speech.audio.done",
        "usage": {"input_tokens": 7, "output_tokens": 1, "total_tokens": 8},
    }
    events = [json.loads(delta.removeprefix("data: ")) for delta in deltas]
    assert {event["type"] for event in events} == {"speech.audio.delta"}
    assert b"".join(base64.b64decode(event["audio"]) for event in events) == plain


@pytest.mark.parametrize("is_streamed", [True, False])
@pytest.mark.parametrize("audio_format", ["mp3", "opus", "flac", "wav"])
def test_files_name_model_and_seed(
    tone_client: TestClient, audio_format: str, is_streamed: bool
) -> None:
    response = speak(tone_client, response_format=audio_format, stream=is_streamed, seed=9)
    assert response.headers["x-model-digest"] == DIGEST
    with av.open(io.BytesIO(response.content)) as file:
        tags = {**file.metadata, **file.streams.audio[0].metadata}
    found = {name.lower(): value for name, value in tags.items()}
    assert found["comment"].startswith("AI-generated audio; generator AudioCALM ")
    assert found["comment"].endswith(f"; model {DIGEST}; seed 9")
    if audio_format != "wav":
        assert (found["model"], found["seed"]) == (DIGEST, "9")


def test_an_operator_may_leave_the_tags_out(engine: LocalEngine) -> None:
    with TestClient(create_app(engine, ServeSettings(names_origin=False))) as client:
        plain = post(client, seed=9)
    assert b"AI-generated" not in plain.content
    assert plain.content[44:] == audio(9, 1)


def test_unknown_fields_of_speech_are_ignored_and_named(client: TestClient) -> None:
    plain = speak(client)
    assert "x-ignored-fields" not in plain.headers
    response = speak(client, **{"top_p": 1, "é\n,": 2, "normalization_options": {}})
    assert response.status_code == 200
    assert response.headers["x-ignored-fields"] == "normalization_options, top_p, ???"
    many = speak(client, **{f"field{index:02}": 0 for index in range(20)})
    assert many.headers["x-ignored-fields"].endswith("field15, and 4 more")


def test_pages_of_named_origins_may_call(engine: LocalEngine) -> None:
    settings = ServeSettings(cors_origins=("https://ours.example",))
    with TestClient(create_app(engine, settings)) as client:
        ours = client.get("/v1/models", headers={"Origin": "https://ours.example"})
        assert ours.headers["access-control-allow-origin"] == "https://ours.example"
        assert "X-Seed" in ours.headers["access-control-expose-headers"]
        others = client.get("/v1/models", headers={"Origin": "https://others.example"})
        assert "access-control-allow-origin" not in others.headers
        asked = client.options(
            "/v1/audio/speech",
            headers={"Origin": "https://ours.example", "Access-Control-Request-Method": "POST"},
        )
        assert asked.status_code == 200
