"""POST /v1/audio/generations with several pieces, and the examples of the OpenAPI document."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fastapi.testclient import TestClient

from pipeline.serving.app import create_app
from pipeline.serving.settings import ServeSettings
from tests.factories.http import error_of, post
from tests.factories.serving import LocalEngine, audio, pcm_in


def test_several_pieces_have_seeds_in_a_row(client: TestClient, engine: LocalEngine) -> None:
    response = post(client, seconds=2, seed=5, n=3)
    assert response.status_code == 200
    pieces = response.json()["data"]
    assert [piece["seed"] for piece in pieces] == [5, 6, 7]
    for piece in pieces:
        assert piece["media_type"] == "audio/wav"
        assert pcm_in(base64.b64decode(piece["audio"])) == audio(piece["seed"], 2)


@pytest.mark.parametrize("words", ["break after 1", "refuse"])
def test_one_piece_that_fails_fails_them_all(
    client: TestClient, engine: LocalEngine, words: str
) -> None:
    response = post(client, description=words, seconds=5, n=3)
    assert response.status_code == (500 if "break" in words else 400)
    error_of(response)
    assert engine.batch.stats()["running"] == 0


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"n": 0}, "n"),
        ({"n": 9}, "n"),
        ({"n": 2, "stream": True}, None),
        ({"n": 2, "seed": 2**63 - 1}, "seed"),
        ({"seconds": 121}, "seconds"),
    ],
)
def test_a_count_that_cannot_be_served_is_400(
    client: TestClient, engine: LocalEngine, changes: dict, param: str | None
) -> None:
    response = post(client, **changes)
    assert response.status_code == 400
    assert error_of(response)["param"] == param
    assert engine.jobs == []


def test_words_need_no_description(client: TestClient, engine: LocalEngine) -> None:
    body = {"transcript": "Good morning.", "seed": 3}
    response = client.post("/v1/audio/generations", json=body)
    assert response.status_code == 200
    (job,) = engine.jobs
    assert (job.voice, job.is_described) == ("default", False)
    assert job.description == ServeSettings().speech_description
    post(client, transcript="Good morning.")
    assert engine.jobs[-1].is_described


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"seconds": 2},
        {"transcript": "la", "is_singing": True},
        {"transcript": "la", "modality": "music"},
    ],
)
def test_everything_but_words_needs_a_description(
    client: TestClient, engine: LocalEngine, body: dict
) -> None:
    response = client.post("/v1/audio/generations", json=body)
    assert response.status_code == 400
    error = error_of(response)
    assert (error["param"], error["code"]) == ("description", "missing_required_parameter")
    assert engine.jobs == []


def wav(duration_s: float, level: float = 0.3) -> str:
    """A recording of a hum in base64."""
    time_s = np.arange(round(duration_s * 8000)) / 8000
    file = io.BytesIO()
    soundfile.write(file, level * np.sin(2 * np.pi * 150 * time_s), 8000, format="WAV")
    return base64.b64encode(file.getvalue()).decode()


def continuation(**changes: object) -> dict[str, object]:
    consent = "The speaker has agreed."
    return {"audio": wav(1.5), "transcript": " one\ttwo ", "consent": consent, **changes}


@pytest.fixture
def cloning(engine: LocalEngine) -> Iterator[TestClient]:
    """An endpoint that continues recordings, and embeds them by the size of their files."""
    settings = ServeSettings(continues_recordings=True, max_body_bytes=2000)
    app = create_app(engine, settings, embed=lambda path: [float(Path(path).stat().st_size)])
    with TestClient(app) as client:
        yield client


def test_speech_continues_a_recording_in_its_voice(
    cloning: TestClient, engine: LocalEngine
) -> None:
    response = post(cloning, transcript="three", continuation=continuation(), n=2)
    assert response.status_code == 200
    job = engine.jobs[0]
    assert job.continues is not None
    assert (job.continues.transcript, job.continues.sample_rate) == ("one two", 8000)
    assert job.continues.waveform.shape == (1, 12_000)
    assert job.voice_embedding == (44.0 + 2 * 12_000,)
    post(cloning, transcript="three", continuation=continuation(), voice="ada")
    assert (engine.jobs[-1].voice, engine.jobs[-1].voice_embedding) == ("ada", None)


@pytest.mark.parametrize(
    ("changes", "param", "message"),
    [
        ({"audio": "no base64!"}, "continuation.audio", "base64"),
        ({"audio": base64.b64encode(b"noise").decode()}, "continuation.audio", "unreadable"),
        ({"audio": wav(0.5)}, "continuation.audio", "1 to 30 s"),
        ({"audio": wav(1.5, level=0.0)}, "continuation.audio", "silent"),
        ({"audio": wav(61.0)}, "continuation.audio", "60"),
        ({"transcript": "..."}, "continuation.transcript", "nothing to say"),
        ({"transcript": "a" * 1001}, "continuation.transcript", "1000"),
        ({"consent": "........"}, "continuation.consent", "match"),
    ],
)
def test_an_unusable_continuation_is_400(
    cloning: TestClient, engine: LocalEngine, changes: dict, param: str, message: str
) -> None:
    response = post(cloning, transcript="three", continuation=continuation(**changes))
    assert response.status_code == 400
    assert error_of(response)["param"] == param
    assert message in error_of(response)["message"]
    assert "/tmp" not in response.text
    assert engine.jobs == []


def test_recordings_are_continued_only_where_the_operator_allows_it(
    client: TestClient, engine: LocalEngine
) -> None:
    response = post(client, transcript="three", continuation=continuation())
    assert response.status_code == 403
    assert "continues_recordings" in error_of(response)["message"]
    assert engine.jobs == []


def test_every_example_of_the_document_makes_audio(engine: LocalEngine) -> None:
    with TestClient(create_app(engine, ServeSettings())) as client:
        document = client.get("/openapi.json").json()
        sent = 0
        for path, operations in document["paths"].items():
            content = operations.get("post", {}).get("requestBody", {}).get("content", {})
            for example in content.get("application/json", {}).get("examples", {}).values():
                response = client.post(path, json=example["value"])
                assert response.status_code == 200, example
                sent += 1
    assert sent == 6


def test_flac_of_a_piece_reads_back(client: TestClient) -> None:
    (piece, _) = post(client, seconds=2, n=2, response_format="flac").json()["data"]
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(piece["audio"])))
    assert (len(samples), rate) == (20, 8000)
