"""The HTTP interface: routes, errors and the playground page, over any engine."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response

from pipeline.errors import PipelineError
from pipeline.serving.schemas import (
    DEFAULT_VOICE,
    GenerateBody,
    SpeechBody,
    error_envelope,
)
from pipeline.serving.settings import ServeSettings
from pipeline.serving.stream import ApiError, AudioEngine, NotReadyError, respond

logger = logging.getLogger(__name__)

PLAYGROUND = Path(__file__).parent / "playground" / "index.html"
_BUSY = (429, 503)
_SEED_BITS = 53
"""Drawn seeds fit a double, so that a browser repeats them exactly."""


def create_app(engine: AudioEngine, settings: ServeSettings) -> FastAPI:
    """The application of one ingress.

    Args:
        engine: Makes the audio.
        settings: Names, defaults and what refused clients are told to wait.
    """
    app = FastAPI(title="AudioCALM", docs_url="/docs", redoc_url=None)
    _add_errors(app, settings.retry_after_s)
    _add_information(app, engine, settings)
    _add_audio(app, engine, settings)
    return app


def _add_audio(app: FastAPI, engine: AudioEngine, settings: ServeSettings) -> None:
    async def answer(body: GenerateBody) -> Response:
        seed = secrets.randbits(_SEED_BITS) if body.seed is None else body.seed
        return await respond(
            engine,
            body.job(seed, settings.voice_aliases),
            body.response_format,
            is_streamed=body.is_streamed,
            headers={"X-Seed": str(seed)},
        )

    @app.post("/v1/audio/generate", response_class=Response)
    async def generate(body: GenerateBody) -> Response:
        """Speech, sound or music from a description."""
        return await answer(body)

    @app.post("/v1/audio/speech", response_class=Response)
    async def speech(body: SpeechBody) -> Response:
        """Speech, as OpenAI's clients ask for it."""
        names = (settings.model_name, *settings.model_aliases)
        if body.model not in names:
            raise ApiError(404, f"no model {body.model!r}; there is {', '.join(names)}", "model")
        if body.speed != 1.0:
            raise ApiError(
                422,
                f"speed is {body.speed}; only 1 is made: describe the pace in `instructions`, "
                "as in 'a man speaks slowly'",
                "speed",
            )
        try:
            return await answer(body.as_generate(settings.speech_description))
        except ApiError as error:
            raise _in_speech_terms(error) from error


def _add_information(app: FastAPI, engine: AudioEngine, settings: ServeSettings) -> None:
    @app.get("/", include_in_schema=False)
    async def playground() -> FileResponse:
        return FileResponse(PLAYGROUND, media_type="text/html")

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the ingress answers."""
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> dict[str, Any]:
        """200 once audio can be made, 503 with Retry-After before."""
        service = await engine.service()
        return {"status": "ready", "bundle": service.digest}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The one model, as OpenAI's clients list models."""
        model = {
            "id": settings.model_name,
            "object": "model",
            "created": 0,
            "owned_by": "audiocalm",
        }
        return {"object": "list", "data": [model]}

    @app.get("/v1/audio/voices")
    async def voices() -> dict[str, Any]:
        """Names for `voice`, and the width of `voice_embedding`."""
        service = await engine.service()
        names = [DEFAULT_VOICE, *service.voices]
        return {
            "voices": [{"id": name, "name": name} for name in names],
            "speaker_dim": service.speaker_dim,
            "sample_rate": service.layout.sample_rate,
            "num_channels": service.layout.num_channels,
        }


def _add_errors(app: FastAPI, retry_after_s: int) -> None:
    def answer(
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> JSONResponse:
        kind = "server_error" if status >= 500 else "invalid_request_error"
        envelope = error_envelope(
            message, kind="rate_limit_error" if status == 429 else kind, param=param, code=code
        )
        waits = {"Retry-After": str(retry_after_s)} if status in _BUSY else {}
        return JSONResponse(envelope, status, headers={**waits, **(headers or {})})

    @app.exception_handler(ApiError)
    async def refused(_: Request, error: ApiError) -> JSONResponse:
        return answer(error.status, error.message, error.param)

    @app.exception_handler(NotReadyError)
    async def not_ready(_: Request, error: NotReadyError) -> JSONResponse:
        return answer(503, str(error), code="not_ready")

    @app.exception_handler(PipelineError)
    async def broken(_: Request, error: PipelineError) -> JSONResponse:
        return answer(500, str(error), code="generation_failed")

    @app.exception_handler(HTTPException)
    async def no_route(_: Request, error: HTTPException) -> JSONResponse:
        return answer(error.status_code, str(error.detail), headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        problems = [_problem(item) for item in error.errors()]
        param = problems[0][0] or None
        message = "; ".join(f"{name}: {text}" if name else text for name, text in problems)
        return answer(422, message, param, "invalid_value")

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> JSONResponse:
        # Starlette raises the error again after this answer, so no server takes it for handled.
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        message = "the server failed to answer; its log says why"
        return answer(500, message, code="internal_error")


def _problem(item: Mapping[str, Any]) -> tuple[str, str]:
    """Field and message of one error of a body; a body that is no JSON has no field."""
    if item["type"] == "json_invalid":
        return "", f"{item['msg']} at character {item['loc'][-1]}"
    return ".".join(str(part) for part in item["loc"] if part != "body"), item["msg"]


def _in_speech_terms(error: ApiError) -> ApiError:
    """An error of our own request form under the field names of the speech form."""
    names = {"transcript": "input", "description": "instructions"}
    param = names.get(error.param or "", error.param)
    return ApiError(error.status, error.message, param)
