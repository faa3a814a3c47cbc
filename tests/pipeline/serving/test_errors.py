"""What goes wrong is one envelope, names the field, and never reaches the engine."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from pipeline.serving.app import create_app
from pipeline.serving.settings import ServeSettings
from pipeline.serving.stream import Service
from tests.factories.http import error_of, post, speak
from tests.factories.serving import LocalEngine


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"description": None}, "description"),
        ({"duration": 3}, "duration"),
        ({"modality": "video"}, "modality"),
        ({"response_format": "mp4"}, "response_format"),
        ({"seconds": "long"}, "seconds"),
        ({"seed": -1}, "seed"),
        ({"language": "!"}, "language"),
        ({"voice_embedding": ["x"]}, "voice_embedding.0"),
        ({"voice": "ada", "voice_embedding": [1.0]}, None),
        ({"description": "refuse this"}, "description"),
    ],
)
def test_400_names_the_field(client: TestClient, body: dict, param: str | None) -> None:
    response = post(client, **body)
    assert response.status_code == 400
    error = error_of(response)
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert param is None or error["message"].startswith(f"{param}: ")
    assert error["code"]


def test_a_body_that_is_no_json_is_400(client: TestClient) -> None:
    response = client.post(
        "/v1/audio/generations", content="{", headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 400
    error = error_of(response)
    assert error["param"] is None
    assert error["message"] == "JSON decode error at character 1"


def test_a_wrong_method_is_refused_with_the_allowed_one(client: TestClient) -> None:
    response = client.get("/v1/audio/generations")
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    error_of(response)


def test_an_unforeseen_error_is_an_envelope_and_a_traceback_in_the_log(
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
    (record,) = [record for record in caplog.records if record.name == "pipeline.serving.errors"]
    assert record.getMessage().endswith("GET /ready failed")
    assert error["message"].split()[-1] in record.getMessage()
    assert record.exc_info
    assert record.exc_info[0] is KeyError


HUGE = 10**400
RAW = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[
            (field, value)
            for field in (
                "seconds",
                "seed",
                "num_flow_steps",
                "first_flow_steps",
                "guidance_scale",
                "guidance_rescale",
                "sde_temperature",
            )
            for value in (HUGE, -HUGE, -1, 2**63, "1" * 5000, [], {}, "x")
        ],
        ("num_flow_steps", 300_000_000),
        ("num_flow_steps", 65),
        ("first_flow_steps", 65),
        ("guidance_scale", 21),
        ("seconds", 121),
        ("seconds", 0.05),
        ("guidance_interval", [0.1]),
        ("guidance_interval", [0.9, 0.1]),
        ("guidance_interval", [0, HUGE]),
        ("voice_embedding", [HUGE]),
        ("voice_embedding", [3e38]),
        ("voice_embedding", [0.0] * 4097),
        ("voice", "v" * 257),
        ("transcript", "word " * 900),
        ("transcript", "word " * 400),
        ("transcript", "..."),
        ("transcript", "\u200b"),
        ("transcript", "\U0001f642\U0001f642"),
        ("description", "\n-\n\u200b" * 1000),
        ("description", "\ufeff"),
        ("language", "a" * 3000),
        ("\U0001f642" * 3000, 1),
    ],
)
def test_values_out_of_range_never_reach_the_engine(
    client: TestClient, engine: LocalEngine, field: str, value: object
) -> None:
    response = post(client, **{field: value})
    assert response.status_code == 400
    error = error_of(response)
    assert error["type"] == "invalid_request_error"
    assert error["param"].startswith(field[:100])
    assert len(response.content) < 4000
    assert engine.jobs == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b'{"description": "\xff"}',
        b'{"description": "\\ud800"}',
        b'{"\\ud800": 1}',
        b'{"description": "x", "voice": "\\udfff"}',
        b'{"description": "x", "language": "\\udfff"}',
        b'{"description": "x", "seconds": NaN}',
        b'{"description": "x", "seconds": Infinity}',
        b'{"description": "x", "guidance_scale": 1e400}',
        b'{"description": "x", "seed": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"description": ' * 10_000,
        b'{"description": "x", "voice": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b"{" + b",".join(b'"k%d": 1' % n for n in range(5000)) + b"}",
    ],
)
def test_bodies_that_are_no_request_are_400(
    client: TestClient, engine: LocalEngine, content: bytes
) -> None:
    response = client.post("/v1/audio/generations", content=content, headers=RAW)
    assert response.status_code == 400
    assert error_of(response)["type"] == "invalid_request_error"
    assert len(response.content) < 4000
    assert engine.jobs == []


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "image/png", ""]
)
def test_another_content_type_is_400(client: TestClient, kind: str) -> None:
    response = client.post(
        "/v1/audio/generations", content=b'{"description": "x"}', headers={"Content-Type": kind}
    )
    assert response.status_code == 400
    error_of(response)


@pytest.mark.parametrize(
    ("changes", "status", "param"),
    [
        ({"model": "whisper"}, 404, "model"),
        ({"speed": 0.2}, 400, "speed"),
        ({"speed": 9}, 400, "speed"),
        ({"response_format": "ogg"}, 400, "response_format"),
        ({"stream_format": "sse", "stream": False}, 400, None),
        ({"input": None}, 400, "input"),
        ({"instructions": "refuse"}, 400, "instructions"),
    ],
)
def test_speech_errors_are_in_its_own_terms(
    client: TestClient, changes: dict, status: int, param: str
) -> None:
    response = speak(client, **changes)
    assert response.status_code == status
    assert error_of(response)["param"] == param


def test_internal_causes_are_only_in_the_log(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    response = post(client, description="explode")
    assert response.status_code == 500
    assert "out of memory" not in response.text
    assert "out of memory" in caplog.text


def test_an_unknown_path_is_an_error_envelope(client: TestClient) -> None:
    response = client.get("/v1/nothing")
    assert response.status_code == 404
    assert error_of(response)["code"] == "unknown_url"
    assert "GET /v1/nothing" in error_of(response)["message"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"model": "whisper"}, "model_not_found"),
        ({"response_format": "ogg"}, "unsupported_value"),
        ({"input": None}, "invalid_value"),
        ({"input": "..."}, "invalid_value"),
        ({"input": "word " * 400}, "invalid_value"),
    ],
)
def test_codes_are_those_of_other_clients(client: TestClient, changes: dict, code: str) -> None:
    response = speak(client, **changes)
    error = error_of(response)
    assert error["code"] == code
    assert error["message"].startswith(f"{error['param']}: ")


def test_a_missing_field_says_so(client: TestClient) -> None:
    error = error_of(client.post("/v1/audio/speech", json={"model": "tts-1", "voice": "alloy"}))
    assert (error["param"], error["code"]) == ("input", "missing_required_parameter")


def test_words_that_take_too_long_are_refused_with_the_limit(client: TestClient) -> None:
    error = error_of(speak(client, input="word " * 400))
    assert error["param"] == "input"
    assert "takes about 136 s; at most 120 s are made" in error["message"]
