"""OpenAI's own client against the endpoint on a real socket."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest

from pipeline.serving.app import create_app
from pipeline.serving.keys import KEYS_VARIABLE, key_digests
from pipeline.serving.settings import BatchSettings, ServeSettings
from tests.factories.http import served
from tests.factories.serving import CHUNK_SAMPLES, LAYOUT, LocalEngine, audio, pcm_in

openai = pytest.importorskip("openai")

NUM_STEPS = 160
"""Chunks of 0.2 s of audio."""


@pytest.fixture
def manual() -> Iterator[LocalEngine]:
    """An engine that makes a block whenever it is permitted to."""
    with LocalEngine(BatchSettings(max_batch=1, max_waiting=0), is_manual=True) as engine:
        yield engine


def client_of(url: str) -> Any:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0, timeout=None)


def ask(**changes: object) -> dict[str, Any]:
    return {"model": "tts-1", "voice": "alloy", "input": "Good morning.", **changes}


@pytest.mark.parametrize("audio_format", ["mp3", "opus", "aac", "flac", "wav", "pcm"])
def test_every_format_streamed_and_whole(engine: LocalEngine, audio_format: str) -> None:
    with served(create_app(engine, ServeSettings())) as url, client_of(url) as client:
        fields = ask(response_format=audio_format, extra_body={"seed": 1})
        fields["instructions"] = f"for {NUM_STEPS} steps"
        whole = client.audio.speech.create(**fields).content
        with client.audio.speech.with_streaming_response.create(**fields) as response:
            assert b"".join(response.iter_bytes()) == whole
    made_s = NUM_STEPS * CHUNK_SAMPLES / LAYOUT.sample_rate
    if audio_format == "pcm":
        assert len(whole) == pytest.approx(2 * 24_000 * made_s)
        return
    with av.open(io.BytesIO(whole)) as file:
        rate = file.streams.audio[0].rate
        duration_s = sum(frame.samples for frame in file.decode(audio=0)) / rate
    # MP3 and AAC add the delay and padding of their encoders at 8 kHz.
    assert made_s <= duration_s <= made_s + 0.3


def test_a_stream_begins_before_generation_ends(manual: LocalEngine) -> None:
    with served(create_app(manual, ServeSettings())) as url, client_of(url) as client:
        manual.worker.release()
        fields = ask(response_format="wav", extra_body={"seed": 1})
        fields["instructions"] = "for 3 steps"
        with client.audio.speech.with_streaming_response.create(**fields) as response:
            chunks = response.iter_bytes()
            assert pcm_in(next(chunks)) == audio(1, 1)
            assert len(manual.worker.batches) == 1
            manual.worker.release(2)
            assert audio(1, 1) + b"".join(chunks) == audio(1, 3)


def test_models_and_voices(engine: LocalEngine) -> None:
    with served(create_app(engine, ServeSettings())) as url, client_of(url) as client:
        assert next(model.id for model in client.models.list()) == "audiocalm"
        assert client.models.retrieve("tts-1-hd").id == "tts-1-hd"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("whisper-1")


def test_a_voice_from_a_recording(engine: LocalEngine, tmp_path: Path) -> None:
    pytest.importorskip("python_multipart")
    app = create_app(
        engine, ServeSettings(voice_store=str(tmp_path)), embed=lambda path: [0.5, 0.25]
    )
    with served(app) as url, client_of(url) as client:
        voice = client.audio.voices.create(
            name="carla", audio_sample=("a.wav", b"speech"), consent="The speaker has agreed."
        )
        assert voice.id == "carla"
        client.audio.speech.create(**ask(voice="carla"))
    assert engine.jobs[-1].voice_embedding == (0.5, 0.25)


def test_a_key_that_is_unknown_is_an_authentication_error(engine: LocalEngine) -> None:
    digests = key_digests({KEYS_VARIABLE: f"web:{'k' * 16}"})
    with served(create_app(engine, ServeSettings(), key_digests=digests)) as url:
        with client_of(url) as client, pytest.raises(openai.AuthenticationError):
            client.audio.speech.create(**ask())
        with client_of(url).with_options(api_key="k" * 16) as client:
            assert client.audio.speech.create(**ask()).content


def test_errors_are_the_exceptions_that_the_client_knows(manual: LocalEngine) -> None:
    with served(create_app(manual, ServeSettings())) as url, client_of(url) as client:
        with pytest.raises(openai.NotFoundError) as unknown:
            client.audio.speech.create(**ask(model="whisper-1"))
        assert unknown.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError) as wrong:
            client.audio.speech.create(**ask(speed=9))
        assert wrong.value.param == "speed"
        manual.worker.release()
        fields = ask(instructions="for 3 steps", response_format="wav")
        with client.audio.speech.with_streaming_response.create(**fields) as response:
            pieces = response.iter_bytes()  # dropping it would close the connection
            next(pieces)
            with pytest.raises(openai.RateLimitError):
                client.audio.speech.create(**ask())
