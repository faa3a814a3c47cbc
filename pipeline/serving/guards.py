"""ASGI middleware: limits of size and time for request bodies, and HEAD for every GET route."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.serving.errors import error_response

_WITHOUT_BODY = ("GET", "HEAD", "OPTIONS")


class BodyGuard:
    """Reads the whole body before the application is called, and refuses one that is too large.

    A declared length is checked before reading; a chunked body is counted as it arrives.

    Args:
        app: Application to wrap.
        max_bytes: Maximum size of a body.
        max_bytes_at: Maximum size by path, where it differs.
        timeout_s: Time in which a body must arrive, seconds.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_bytes: int,
        timeout_s: float,
        max_bytes_at: Mapping[str, int] | None = None,
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_bytes_at = max_bytes_at or {}
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["method"] in _WITHOUT_BODY:
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                body = await self._body(scope, receive)
        except TimeoutError:
            message = f"the body did not arrive within {self._timeout_s:g} s"
            body = error_response(408, message, headers={"Connection": "close"})
        if isinstance(body, Response):
            await body(scope, receive, send)
        elif body is not None:
            await self._app(scope, _replayed(body, receive), send)

    async def _body(self, scope: Scope, receive: Receive) -> bytes | Response | None:
        """The whole body, or the answer to one that is too large; None if the client left."""
        max_bytes = self._max_bytes_at.get(scope["path"], self._max_bytes)
        declared = Headers(scope=scope).get("content-length", "")
        # A length that is no number is for the server to refuse; here what arrives counts.
        digits = declared.lstrip("0")
        is_known = declared.isascii() and declared.isdigit()
        if is_known and (len(digits) > 18 or int(digits or "0") > max_bytes):
            return _too_large(max_bytes)
        received = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            received += message.get("body", b"")
            if len(received) > max_bytes:
                return _too_large(max_bytes)
            if not message.get("more_body", False):
                return bytes(received)


class HeadGuard:
    """Answers HEAD like GET without the body, which FastAPI does not do by itself.

    Args:
        app: Application to wrap.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            """Send the message with an empty body."""
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self._app({**scope, "method": "GET"}, receive, send_head)


def _too_large(max_bytes: int) -> Response:
    message = f"the body is larger than {max_bytes} bytes; send a shorter text or recording"
    # The rest of the body stays unread: no other request can follow it.
    return error_response(413, message, headers={"Connection": "close"})


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Receive function that replays the body as one message, then passes on the server's."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        """The body first, then what the server receives."""
        return messages.pop() if messages else await receive()

    return replay
