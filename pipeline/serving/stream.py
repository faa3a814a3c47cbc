"""An answer of audio: begins only when audio is there, and never looks finished when it is not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Send

from pipeline.serving.answer import Ending, Item, Opening, Refusal
from pipeline.serving.errors import ApiError
from pipeline.serving.formats import AudioLayout, Format, content_type, stream_header, whole_file
from pipeline.serving.schemas import AudioJob

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Service:
    """What a client may know of the model behind the endpoint.

    Attributes:
        layout: Rate and channels of all audio.
        voices: Descriptions of the voices by name; empty where there is none.
        speaker_dim: Values of a speaker embedding.
        digest: SHA-256 of the bundle.
    """

    layout: AudioLayout
    voices: Mapping[str, str]
    speaker_dim: int
    digest: str


class AudioEngine(Protocol):
    """Makes audio for the endpoint: a local engine, or replicas behind a handle."""

    def generate(self, job: AudioJob) -> AsyncIterator[Item]:
        """Opening, PCM chunks and ending, or one refusal; raises if it breaks down after that."""

    async def service(self) -> Service:
        """What it makes; raises `NotReadyError` while it cannot make anything."""


class SlowClientError(Exception):
    """A client does not take its audio in time."""


@dataclass(frozen=True)
class Patience:
    """How long an answer may take.

    Attributes:
        request_s: The whole of it, from the request to the last byte, seconds.
        client_s: The client's taking of one chunk, seconds.
    """

    request_s: float
    client_s: float


class AudioStream(StreamingResponse):
    """A body of chunks whose source is closed at once when the client leaves or stops reading.

    Args:
        content: The chunks.
        client_timeout_s: How long the client may take for one of them, seconds.
        more: As for a response.
    """

    def __init__(self, content: AsyncIterator[bytes], client_timeout_s: float, **more: Any) -> None:
        super().__init__(content, **more)
        self._client_timeout_s = client_timeout_s

    async def stream_response(self, send: Send) -> None:
        """Send header, chunks and end; an error before the end leaves the body unfinished."""

        async def send_in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(self._client_timeout_s):
                    await send(message)
            except TimeoutError as error:
                raise SlowClientError(
                    f"the client took no audio for {self._client_timeout_s:g} s"
                ) from error

        async with aclosing(self.body_iterator):  # type: ignore[type-var]  # always a generator
            await super().stream_response(send_in_time)


async def respond(
    engine: AudioEngine,
    job: AudioJob,
    audio_format: Format,
    *,
    is_streamed: bool,
    headers: Mapping[str, str],
    patience: Patience,
) -> Response:
    """Make audio and answer with it.

    The first chunk is awaited before the status is sent, so that whatever stops a request early is
    an honest error and not a broken 200.

    Args:
        engine: Makes the audio.
        job: What to make.
        audio_format: Format of the answer.
        is_streamed: Whether to send audio while it is made.
        headers: Further headers of a good answer.
        patience: How long it may take.

    Raises:
        ApiError: If the request is refused, takes too long, or breaks down before the first chunk.
    """
    chunks = _Chunks(engine.generate(job), patience.request_s)
    try:
        layout, first = await chunks.begin()
        if not is_streamed:
            samples = b"".join([first, *[chunk async for chunk in chunks.rest()]])
            content = await asyncio.to_thread(whole_file, audio_format, layout, samples)
    except TimeoutError as error:
        await chunks.close()
        raise ApiError(504, f"no audio within {patience.request_s:g} s; try again") from error
    except BaseException:
        await chunks.close()
        raise
    media_type = content_type(audio_format, layout)
    all_headers = {**headers, **layout.headers(), "Cache-Control": "no-store"}
    if not is_streamed:
        # A stream can say so in the log alone: its headers are sent before its end is known.
        capped = {"X-Capped": "true"} if chunks.is_capped else {}
        return Response(content, media_type=media_type, headers=all_headers | capped)
    body = _body(stream_header(audio_format, layout) + first, chunks)
    # Proxies must not collect the stream.
    all_headers["X-Accel-Buffering"] = "no"
    return AudioStream(body, patience.client_s, media_type=media_type, headers=all_headers)


class _Chunks:
    """The PCM chunks of an answer, each awaited until the request's time is over."""

    def __init__(self, items: AsyncIterator[Item], request_s: float) -> None:
        self._items = items
        self._deadline = asyncio.get_running_loop().time() + request_s
        self.is_capped = False

    async def begin(self) -> tuple[AudioLayout, bytes]:
        """Layout and first chunk.

        Raises:
            ApiError: If the request is refused.
        """
        opening = await self._next()
        if isinstance(opening, Refusal):
            raise ApiError(opening.status, opening.message, opening.param, opening.code)
        if not isinstance(opening, Opening):
            raise TypeError(f"an answer began with {type(opening).__name__}")
        first = await self._next()
        return opening.layout, b"" if isinstance(first, Ending) else _pcm(first)

    async def rest(self) -> AsyncIterator[bytes]:
        """The further chunks."""
        while not isinstance(item := await self._next(), Ending):
            yield _pcm(item)

    async def close(self) -> None:
        """End the request, complete or not."""
        await self._items.aclose()  # type: ignore[attr-defined]  # an async generator

    async def _next(self) -> Item:
        async with asyncio.timeout_at(self._deadline):
            item = await anext(self._items, None)
        if item is None:
            raise TypeError("an answer has no ending")
        if isinstance(item, Ending) and item.is_capped:
            self.is_capped = True
            logger.warning("speech reached its longest duration before the model ended it")
        return item


async def _body(first: bytes, chunks: _Chunks) -> AsyncIterator[bytes]:
    try:
        yield first
        async for chunk in chunks.rest():
            yield chunk
    finally:
        await chunks.close()


def _pcm(item: Item) -> bytes:
    if not isinstance(item, bytes):
        raise TypeError(f"{type(item).__name__} inside an answer")
    return item
