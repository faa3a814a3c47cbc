"""The HTTP interface: routes, errors and the playground page, over any engine."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from model.bundle.limits import RequestError, check_request
from pipeline.serving.errors import ERRORS, ApiError, add_errors
from pipeline.serving.formats import MEDIA_TYPES
from pipeline.serving.guards import BodyGuard, HeadGuard
from pipeline.serving.information import add_information, require_model
from pipeline.serving.schemas import AudioJob, Form, GenerateBody, SpeechBody
from pipeline.serving.settings import ServeSettings
from pipeline.serving.stream import AudioEngine, Patience, respond

_SEED_BITS = 53
"""Drawn seeds fit a double, so that a browser repeats them exactly."""
IGNORED_HEADER = "X-Ignored-Fields"
_EXPOSED = ["X-Seed", "X-Sample-Rate", "X-Channels", "X-Capped", IGNORED_HEADER, "Retry-After"]
"""Headers that pages of other origins may read."""
_MAX_NAMES = 16
_MAX_NAME_CHARS = 64
_AUDIO: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The audio, while it is made or whole.",
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}}
            for kind in (*MEDIA_TYPES, "text/event-stream")
        },
    },
    **ERRORS,
}


def create_app(engine: AudioEngine, settings: ServeSettings) -> FastAPI:
    """The application of one ingress.

    Args:
        engine: Makes the audio.
        settings: Names, defaults, limits and what refused clients are told to wait.
    """
    app = FastAPI(title="AudioCALM", docs_url="/docs", redoc_url=None)
    add_errors(app, settings.retry_after_s)
    app.add_middleware(
        BodyGuard, max_bytes=settings.max_body_bytes, timeout_s=settings.client_timeout_s
    )
    app.add_middleware(HeadGuard)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=_EXPOSED,
        )
    add_information(app, engine, settings)
    _add_audio(app, engine, settings)
    return app


def _add_audio(app: FastAPI, engine: AudioEngine, settings: ServeSettings) -> None:
    limits = settings.limits.limits()
    patience = Patience(settings.timeout_s, settings.client_timeout_s)

    async def answer(job: AudioJob, form: Form, headers: dict[str, str]) -> Response:
        try:
            check_request(job, limits)
        except RequestError as error:
            raise ApiError(400, error.message, error.field) from error
        headers = {"X-Seed": str(job.seed), **headers}
        return await respond(engine, job, form, headers=headers, patience=patience)

    @app.post("/v1/audio/generate", response_class=Response, responses=_AUDIO)
    async def generate(body: GenerateBody) -> Response:
        """Speech, sound or music from a description."""
        return await answer(body.job(_seed(body.seed)), body.form, {})

    @app.post("/v1/audio/speech", response_class=Response, responses=_AUDIO)
    async def speech(body: SpeechBody) -> Response:
        """Speech, as OpenAI's clients ask for it."""
        require_model(settings, body.model)
        ignored = {IGNORED_HEADER: header_list(body.ignored)} if body.ignored else {}
        job = body.job(_seed(body.seed), settings.speech_description)
        try:
            return await answer(job, body.form, ignored)
        except ApiError as error:
            raise _in_speech_terms(error) from error


def _seed(given: int | None) -> int:
    return secrets.randbits(_SEED_BITS) if given is None else given


def header_list(names: Sequence[str]) -> str:
    """Names out of a body as the value of a header: printable ASCII, of bounded length."""
    shown = [
        "".join(c if " " < c < "\x7f" and c != "," else "?" for c in name[:_MAX_NAME_CHARS])
        for name in names[:_MAX_NAMES]
    ]
    more = [f"and {len(names) - _MAX_NAMES} more"] if len(names) > _MAX_NAMES else []
    return ", ".join(shown + more)


def _in_speech_terms(error: ApiError) -> ApiError:
    """An error of our own request form under the field names of the speech form."""
    names = {"transcript": "input", "description": "instructions"}
    param = names.get(error.param or "", error.param)
    return ApiError(error.status, error.message, param, error.code)
