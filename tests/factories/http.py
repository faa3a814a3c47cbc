"""Requests to the endpoint as clients send them, and the endpoint on a real socket."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient


def post(client: TestClient, **body: object) -> httpx.Response:
    return client.post("/v1/audio/generations", json={"description": "rain", **body})


def speak(client: TestClient, **changes: object) -> httpx.Response:
    body = {"model": "tts-1", "input": "Good morning.", "voice": "alloy", **changes}
    return client.post("/v1/audio/speech", json=body)


def error_of(response: httpx.Response) -> dict:
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return dict(body["error"])


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


async def call(app: FastAPI, messages: list[dict], sent: list[dict], is_stuck: bool) -> None:
    """One request of a client that sends these messages and may never read its answer."""

    async def receive() -> dict:
        if messages:
            return messages.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict) -> None:
        sent.append(message)
        if is_stuck and message["type"] == "http.response.body":
            await asyncio.Event().wait()

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "method": "POST",
        "path": "/v1/audio/generations",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    await app(scope, receive, send)
