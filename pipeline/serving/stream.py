"""Audio responses: headers are sent with the first audio, a failed stream is never completed."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Send

from pipeline.serving.answer import Ending, Item, Opening, Refusal, Usage
from pipeline.serving.encoders import AudioEncoder
from pipeline.serving.errors import ApiError, error_body
from pipeline.serving.formats import AudioLayout, content_type
from pipeline.serving.provenance import provenance_of
from pipeline.serving.schemas import AudioJob, Form

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Service:
    """Public facts about the model behind the endpoint.

    Attributes:
        layout: Rate and channels of all audio.
        voices: Descriptions of the voices by name; empty where there is none.
        speaker_dim: Values of a speaker embedding.
        digest: SHA-256 of the bundle.
        aliases: Further names of voices, each with the voice it stands for.
        default_voice: Voice of speech whose request neither names nor describes one; None has none.
    """

    layout: AudioLayout
    voices: Mapping[str, str]
    speaker_dim: int
    digest: str
    aliases: Mapping[str, str] = field(default_factory=dict)
    default_voice: str | None = None


class AudioEngine(Protocol):
    """Generator of audio for the endpoint: a local engine, or replicas behind a handle."""

    def generate(self, job: AudioJob) -> AsyncIterator[Item]:
        """Opening, PCM chunks and ending, or one refusal; raises on a failure after the opening."""

    async def service(self) -> Service:
        """Public facts about the model; raises `NotReadyError` if no replica can serve."""


class SlowClientError(Exception):
    """A client does not read its audio in time."""


@dataclass(frozen=True)
class Timeouts:
    """Timeouts of an answer.

    Attributes:
        request_s: Timeout from the request to the last byte, seconds.
        client_s: Timeout for the client to take one chunk, seconds.
    """

    request_s: float
    client_s: float


class AudioStream(StreamingResponse):
    """Streaming response that closes its source when the client disconnects or stops reading.

    Args:
        content: The chunks.
        client_timeout_s: Timeout for the client to take one chunk, seconds.
        more: Arguments of `StreamingResponse`.
    """

    def __init__(self, content: AsyncIterator[bytes], client_timeout_s: float, **more: Any) -> None:
        super().__init__(content, **more)
        self._client_timeout_s = client_timeout_s

    async def stream_response(self, send: Send) -> None:
        """Send header, chunks and end; an error before the end leaves the body unfinished."""

        async def send_in_time(message: Message) -> None:
            """Send, unless the client takes longer than its timeout."""
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
    form: Form,
    *,
    headers: Mapping[str, str],
    timeouts: Timeouts,
) -> Response:
    """Generate audio and answer with it.

    The status is sent after the first chunk is there, so that an early failure is an error status
    and not a broken 200.

    Args:
        engine: Engine that generates the audio.
        job: Job to generate.
        form: Format of the answer.
        headers: Additional headers of a successful answer.
        timeouts: Timeouts.

    Raises:
        ApiError: If the request is refused, times out, or fails before the first chunk.
    """
    answer = Answer(engine, job, form, timeouts.request_s)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(answer.close)
        first = await answer.begin()
        all_headers = {
            **headers,
            **answer.layout.headers(),
            "X-Model-Digest": answer.model,
            "Cache-Control": "no-store",
        }
        media_type = content_type(form.audio_format, answer.layout)
        if not form.is_streamed:
            content = first + await answer.whole()
            # Only a log message can say so of a stream: its headers are sent before its end.
            capped = {"X-Capped": "true"} if answer.is_capped else {}
            return Response(content, media_type=media_type, headers=all_headers | capped)
        stack.pop_all()  # the body closes the answer
    # Proxies must not collect the stream.
    all_headers["X-Accel-Buffering"] = "no"
    body = _events(first, answer) if form.has_events else _body(first, answer)
    media_type = "text/event-stream" if form.has_events else media_type
    return AudioStream(body, timeouts.client_s, media_type=media_type, headers=all_headers)


async def respond_with_several(
    engine: AudioEngine,
    jobs: Sequence[AudioJob],
    form: Form,
    *,
    headers: Mapping[str, str],
    timeouts: Timeouts,
) -> Response:
    """Generate several pieces of audio concurrently and answer with all of them as JSON.

    Args:
        engine: Engine that generates the audio.
        jobs: Jobs to generate.
        form: Format of each; none is streamed.
        headers: Additional headers of a successful answer.
        timeouts: Timeouts of each.

    Raises:
        ApiError: If one of them is refused, times out or fails; the others are cancelled.
    """
    form = replace(form, is_streamed=False)

    async def made(job: AudioJob) -> dict[str, Any]:
        """One piece of audio as an entry of the answer."""
        answer = Answer(engine, job, form, timeouts.request_s)
        try:
            content = await answer.begin() + await answer.whole()
        finally:
            await answer.close()
        return {
            "seed": job.seed,
            "media_type": content_type(form.audio_format, answer.layout),
            "is_capped": answer.is_capped,
            "audio": base64.b64encode(content).decode(),
        }

    tasks = [asyncio.ensure_future(made(job)) for job in jobs]
    try:
        pieces = await asyncio.gather(*tasks)
    finally:  # after an error, the other requests end before the answer does
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    content = await asyncio.to_thread(json.dumps, {"data": pieces})
    all_headers = {**headers, "Cache-Control": "no-store"}
    return Response(content, media_type="application/json", headers=all_headers)


class Answer:
    """Encoded audio of one request, with a deadline.

    Encoding runs outside of the event loop, which other streams need.

    Args:
        engine: Engine that generates the audio.
        job: Job to generate.
        form: Format, and whether the file is needed as a whole.
        request_s: Time until the deadline, seconds.

    Attributes:
        layout: Rate and channels of the encoded audio; known after `begin`.
        model: SHA-256 of the bundle; known after `begin`.
        is_capped: Whether speech was cut off at its maximum duration; known at the end.
        usage: Token usage; known at the end.
    """

    layout: AudioLayout
    model: str

    def __init__(self, engine: AudioEngine, job: AudioJob, form: Form, request_s: float) -> None:
        self._items = engine.generate(job)
        self._seed = job.seed
        self._form = form
        self._request_s = request_s
        self._deadline = asyncio.get_running_loop().time() + request_s
        self._encoder: AudioEncoder
        self._is_over = False
        self.is_capped = False
        self.usage: Usage | None = None

    async def begin(self) -> bytes:
        """Encode the first chunk; codecs with packets may return no bytes yet.

        Raises:
            ApiError: If the request is refused, or nothing comes in time.
        """
        opening = await self._next()
        if isinstance(opening, Refusal):
            raise ApiError(opening.status, opening.message, opening.param, opening.code)
        if not isinstance(opening, Opening):
            raise TypeError(f"an answer began with {type(opening).__name__}")
        first = await self._next()
        form = self._form
        self._encoder = await asyncio.to_thread(
            AudioEncoder,
            form.audio_format,
            opening.layout,
            form.layout,
            is_whole=not form.is_streamed,
            tempo=opening.tempo,
            provenance=provenance_of(opening.model, self._seed) if form.names_origin else None,
        )
        self.layout, self.model = self._encoder.layout, opening.model
        return b"" if isinstance(first, Ending) else await self._encoded(first)

    async def rest(self) -> AsyncIterator[bytes]:
        """Remaining bytes as they become available."""
        while not self._is_over and not isinstance(item := await self._next(), Ending):
            if data := await self._encoded(item):
                yield data
        if data := await asyncio.to_thread(self._encoder.finish):
            yield data

    async def whole(self) -> bytes:
        """All remaining bytes.

        Raises:
            ApiError: If they do not come in time.
        """
        return b"".join([data async for data in self.rest()])

    async def close(self) -> None:
        """End the request, complete or not."""
        await self._items.aclose()  # type: ignore[attr-defined]  # an async generator

    async def _encoded(self, item: Item) -> bytes:
        if not isinstance(item, bytes):
            raise TypeError(f"{type(item).__name__} inside an answer")
        return await asyncio.to_thread(self._encoder.encode, item)

    async def _next(self) -> Item:
        try:
            async with asyncio.timeout_at(self._deadline):
                item = await anext(self._items, None)
        except TimeoutError as error:
            raise ApiError(504, f"no audio within {self._request_s:g} s; try again") from error
        if item is None:
            raise TypeError("an answer has no ending")
        if isinstance(item, Ending):
            self._is_over, self.is_capped, self.usage = True, item.is_capped, item.usage
            if item.is_capped:
                logger.warning("speech reached its longest duration before the model ended it")
        return item


async def _body(first: bytes, answer: Answer) -> AsyncIterator[bytes]:
    try:
        yield first
        async for data in answer.rest():
            yield data
    finally:
        await answer.close()


async def _events(first: bytes, answer: Answer) -> AsyncIterator[bytes]:
    """The audio as OpenAI's server-sent events; a failure sends an `error` event and aborts."""
    try:
        if first:
            yield _delta(first)
        async for data in answer.rest():
            yield _delta(data)
        usage = answer.usage or Usage(0, 0)
        counts = {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "total_tokens": usage.input_tokens + usage.output_tokens,
        }
        yield _event({"type": "speech.audio.done", "usage": counts})
        yield b"data: [DONE]\n\n"
    except Exception:  # raised again, so that the body stays unfinished
        message = "generation failed; the cause is in the log of the server"
        yield _event({"type": "error", "error": error_body(500, message, code="generation_failed")})
        raise
    finally:
        await answer.close()


def _delta(data: bytes) -> bytes:
    audio = base64.b64encode(data).decode()
    return _event({"type": "speech.audio.delta", "audio": audio})


def _event(fields: Mapping[str, Any]) -> bytes:
    return f"data: {json.dumps(fields, separators=(',', ':'))}\n\n".encode()
