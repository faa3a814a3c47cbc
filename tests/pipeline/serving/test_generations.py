"""POST /v1/audio/generations with several pieces, and the examples of the OpenAPI document."""

from __future__ import annotations

import base64
import io

import pytest
import soundfile
from fastapi.testclient import TestClient

from pipeline.serving.app import create_app
from pipeline.serving.settings import ServeSettings
from tests.factories.http import error_of, post
from tests.factories.serving import LocalEngine, audio


def test_several_pieces_have_seeds_in_a_row(client: TestClient, engine: LocalEngine) -> None:
    response = post(client, seconds=2, seed=5, n=3)
    assert response.status_code == 200
    pieces = response.json()["data"]
    assert [piece["seed"] for piece in pieces] == [5, 6, 7]
    for piece in pieces:
        assert piece["media_type"] == "audio/wav"
        assert base64.b64decode(piece["audio"])[44:] == audio(piece["seed"], 2)


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
def test_what_cannot_be_several_is_400(
    client: TestClient, engine: LocalEngine, changes: dict, param: str | None
) -> None:
    response = post(client, **changes)
    assert response.status_code == 400
    assert error_of(response)["param"] == param
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
    assert sent == 5


def test_flac_of_a_piece_reads_back(client: TestClient) -> None:
    (piece, _) = post(client, seconds=2, n=2, response_format="flac").json()["data"]
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(piece["audio"])))
    assert (len(samples), rate) == (20, 8000)
