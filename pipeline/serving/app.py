"""The HTTP interface: routes, errors and the playground page, over any engine."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse
from starlette.responses import Response

from model.bundle.limits import RequestError, check_request
from pipeline.serving.errors import ApiError, ErrorEnvelope, add_errors
from pipeline.serving.guards import BodyGuard, HeadGuard
from pipeline.serving.schemas import DEFAULT_VOICE, GenerateBody, SpeechBody
from pipeline.serving.settings import ServeSettings
from pipeline.serving.stream import AudioEngine, Patience, respond

PLAYGROUND = Path(__file__).parent / "playground" / "index.html"
_SEED_BITS = 53
"""Drawn seeds fit a double, so that a browser repeats them exactly."""
_ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorEnvelope, "description": "The request is refused; `error` says why."},
    "5XX": {"model": ErrorEnvelope, "description": "No audio can be made now."},
}
_AUDIO: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The audio, while it is made or whole.",
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}}
            for kind in ("audio/wav", "audio/pcm", "audio/flac")
        },
    },
    **_ERRORS,
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
    _add_information(app, engine, settings)
    _add_audio(app, engine, settings)
    return app


def _add_audio(app: FastAPI, engine: AudioEngine, settings: ServeSettings) -> None:
    limits = settings.limits.limits()
    patience = Patience(settings.timeout_s, settings.client_timeout_s)

    async def answer(body: GenerateBody) -> Response:
        seed = secrets.randbits(_SEED_BITS) if body.seed is None else body.seed
        job = body.job(seed, settings.voice_aliases)
        try:
            check_request(job, limits)
        except RequestError as error:
            raise ApiError(400, error.message, error.field) from error
        return await respond(
            engine,
            job,
            body.response_format,
            is_streamed=body.is_streamed,
            headers={"X-Seed": str(seed)},
            patience=patience,
        )

    @app.post("/v1/audio/generate", response_class=Response, responses=_AUDIO)
    async def generate(body: GenerateBody) -> Response:
        """Speech, sound or music from a description."""
        return await answer(body)

    @app.post("/v1/audio/speech", response_class=Response, responses=_AUDIO)
    async def speech(body: SpeechBody) -> Response:
        """Speech, as OpenAI's clients ask for it."""
        names = (settings.model_name, *settings.model_aliases)
        if body.model not in names:
            raise ApiError(
                404,
                f"{body.model[:80]!r} does not exist; there is {', '.join(names)}",
                "model",
                "model_not_found",
            )
        if body.speed != 1.0:
            raise ApiError(
                400,
                f"is {body.speed}; only 1 is made: describe the pace in `instructions`, "
                "as in 'a man speaks slowly'",
                "speed",
                "unsupported_value",
            )
        try:
            return await answer(body.as_generate(settings.speech_description))
        except ApiError as error:
            raise _in_speech_terms(error) from error


def _add_information(app: FastAPI, engine: AudioEngine, settings: ServeSettings) -> None:
    @app.get("/", include_in_schema=False)
    async def playground() -> FileResponse:
        return FileResponse(PLAYGROUND, media_type="text/html")

    @app.get("/health", responses=_ERRORS)
    async def health() -> dict[str, str]:
        """Whether the ingress answers."""
        return {"status": "ok"}

    @app.get("/ready", responses=_ERRORS)
    async def ready() -> dict[str, Any]:
        """200 once audio can be made, 503 with Retry-After before."""
        service = await engine.service()
        return {"status": "ready", "bundle": service.digest}

    @app.get("/v1/models", responses=_ERRORS)
    async def models() -> dict[str, Any]:
        """The one model, as OpenAI's clients list models."""
        model = {
            "id": settings.model_name,
            "object": "model",
            "created": 0,
            "owned_by": "audiocalm",
        }
        return {"object": "list", "data": [model]}

    @app.get("/v1/audio/voices", responses=_ERRORS)
    async def voices() -> dict[str, Any]:
        """Names for `voice` with descriptions, and the width of `voice_embedding`."""
        service = await engine.service()
        described = {DEFAULT_VOICE: "", **service.voices}
        return {
            "voices": [
                {"id": name, "name": name, "description": text} for name, text in described.items()
            ],
            "speaker_dim": service.speaker_dim,
            "sample_rate": service.layout.sample_rate,
            "num_channels": service.layout.num_channels,
        }


def _in_speech_terms(error: ApiError) -> ApiError:
    """An error of our own request form under the field names of the speech form."""
    names = {"transcript": "input", "description": "instructions"}
    param = names.get(error.param or "", error.param)
    return ApiError(error.status, error.message, param, error.code)
