"""Requests to the endpoint as clients send them, and the endpoint on a real socket."""

from __future__ import annotations

import asyncio
import random
import socket
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


def free_port() -> int:
    """A port that nobody listens on, below those that systems give to outgoing connections."""
    ports = random.SystemRandom().sample(range(20_000, 32_000), 100)
    for port in ports:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"100 ports from {min(ports)} to {max(ports)} are taken")


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The application on a real socket: only there is an abort an abort.

    Keep the iterator of a streamed answer as long as its connection is to stay open: the garbage
    collector closes both.
    """
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


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
