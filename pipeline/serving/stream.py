"""An answer of audio: begins only when audio is there, and never looks finished when it is not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from starlette.responses import Response, StreamingResponse
from starlette.types import Send

from pipeline.serving.engine import Opening, Refusal
from pipeline.serving.formats import AudioLayout, Format, content_type, stream_header, whole_file
from pipeline.serving.schemas import AudioJob


@dataclass(frozen=True)
class Service:
    """What a client may know of the model behind the endpoint.

    Attributes:
        layout: Rate and channels of all audio.
        voices: Names of the voices.
        speaker_dim: Values of a speaker embedding.
        digest: SHA-256 of the bundle.
    """

    layout: AudioLayout
    voices: tuple[str, ...]
    speaker_dim: int
    digest: str


class AudioEngine(Protocol):
    """Makes audio for the endpoint: a local engine, or replicas behind a handle."""

    def generate(self, job: AudioJob) -> AsyncIterator[Opening | Refusal | bytes]:
        """An opening and PCM chunks, or one refusal; raises if it breaks down after that."""

    async def service(self) -> Service:
        """What it makes; raises `NotReadyError` while it cannot make anything."""


class NotReadyError(RuntimeError):
    """No replica can serve now."""


class ApiError(Exception):
    """An answer that is an error.

    Attributes:
        status: HTTP status.
        message: The value received, the limit and the remedy.
        param: Field of the request at fault.
    """

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(status, message, param)
        self.status = status
        self.message = message
        self.param = param


class AudioStream(StreamingResponse):
    """A body of chunks whose source is closed at once when the client leaves."""

    async def stream_response(self, send: Send) -> None:
        """Send header, chunks and end; an error before the end leaves the body unfinished."""
        async with aclosing(self.body_iterator):  # type: ignore[type-var]  # always a generator
            await super().stream_response(send)


async def respond(
    engine: AudioEngine,
    job: AudioJob,
    audio_format: Format,
    *,
    is_streamed: bool,
    headers: Mapping[str, str],
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

    Raises:
        ApiError: If the request is refused, or breaks down before the first chunk.
    """
    chunks = engine.generate(job)
    try:
        opening = await anext(chunks)
        if isinstance(opening, Refusal):
            raise ApiError(opening.status, opening.message, opening.param)
        if not isinstance(opening, Opening):
            raise TypeError(f"an answer began with {type(opening).__name__}")
        layout = opening.layout
        first = _pcm(await anext(chunks))
        if not is_streamed:
            samples = b"".join([first, *[_pcm(item) async for item in chunks]])
            content = whole_file(audio_format, layout, samples)
    except BaseException:
        await chunks.aclose()  # type: ignore[attr-defined]  # an async generator
        raise
    media_type = content_type(audio_format, layout)
    all_headers = {**headers, **layout.headers(), "Cache-Control": "no-store"}
    if not is_streamed:
        return Response(content, media_type=media_type, headers=all_headers)
    body = _body(stream_header(audio_format, layout) + first, chunks)
    # Proxies must not collect the stream.
    return AudioStream(
        body, media_type=media_type, headers=all_headers | {"X-Accel-Buffering": "no"}
    )


async def _body(
    first: bytes, chunks: AsyncIterator[Opening | Refusal | bytes]
) -> AsyncIterator[bytes]:
    async with aclosing(chunks):  # type: ignore[type-var]  # an async generator
        yield first
        async for item in chunks:
            yield _pcm(item)


def _pcm(item: Opening | Refusal | bytes) -> bytes:
    if not isinstance(item, bytes):
        raise TypeError(f"{type(item).__name__} inside an answer")
    return item
