"""Bodies of bounded size that arrive in time, and HEAD wherever GET is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from pipeline.serving.app import create_app
from pipeline.serving.settings import ServeSettings
from tests.factories.http import call, error_of, post
from tests.factories.serving import LocalEngine

RAW = {"Content-Type": "application/json"}


def pieces(size: int) -> Iterator[bytes]:
    """A body in chunks: no length is declared."""
    yield from (b" " * 1000 for _ in range(size // 1000))


@pytest.mark.parametrize("is_declared", [True, False])
def test_a_body_beyond_the_limit_is_413(engine: LocalEngine, is_declared: bool) -> None:
    app = create_app(engine, ServeSettings(max_body_bytes=10_000))
    with TestClient(app) as client:
        for size, status in ((11_000, 413), (10_000, 400), (10**7, 413)):
            content = b" " * size if is_declared else pieces(size)
            response = client.post("/v1/audio/generations", content=content, headers=RAW)
            assert response.status_code == status
            assert error_of(response)["type"] == "invalid_request_error"
        assert error_of(response)["code"] == "request_too_large"
        assert "10000 bytes" in error_of(response)["message"]
        assert post(client, seed=1).status_code == 200


@pytest.mark.parametrize(
    "path", ["/", "/health", "/ready", "/v1/models", "/v1/audio/voices", "/docs", "/openapi.json"]
)
def test_head_is_get_without_the_body(client: TestClient, path: str) -> None:
    told, whole = client.head(path), client.get(path)
    assert told.status_code == 200
    assert told.content == b""
    assert whole.content
    kept = ("content-length", "content-type")
    assert [told.headers[name] for name in kept] == [whole.headers[name] for name in kept]


def test_head_of_what_is_not_there_is_an_error(client: TestClient) -> None:
    assert client.head("/v1/nothing").status_code == 404
    assert client.head("/v1/audio/generations").status_code == 405


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_body_that_never_arrives_is_given_up(engine: LocalEngine, is_gone: bool) -> None:
    app = create_app(engine, ServeSettings(client_timeout_s=0.05))
    sent: list[dict] = []
    messages = [{"type": "http.request", "body": b"{", "more_body": True}]
    messages += [{"type": "http.disconnect"}] * is_gone
    asyncio.run(call(app, messages, sent, is_stuck=False))
    assert [message.get("status") for message in sent] == ([] if is_gone else [408, None])
