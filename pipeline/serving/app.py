"""The HTTP interface: routes, errors and the playground page, over any engine."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from fastapi import Body, FastAPI, Request
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from model.bundle.limits import RequestError
from pipeline.serving.admission import Admission
from pipeline.serving.errors import ERRORS, ApiError, add_errors
from pipeline.serving.examples import GENERATION_EXAMPLES, SPEECH_EXAMPLES
from pipeline.serving.formats import MEDIA_TYPES
from pipeline.serving.guards import BodyGuard, HeadGuard
from pipeline.serving.information import add_information, require_model
from pipeline.serving.keys import KeyGuard, RateLimiter
from pipeline.serving.live import LiveSettings
from pipeline.serving.schemas import GenerationBody, SpeechBody
from pipeline.serving.settings import ServeSettings
from pipeline.serving.stream import AudioEngine, Timeouts, respond, respond_with_several
from pipeline.serving.uploads import Embed
from pipeline.serving.voice_routes import add_voices
from pipeline.serving.voice_store import VoiceStore
from pipeline.storage import Folder

_SEED_BITS = 53
"""Random seeds fit a double, so that JavaScript can represent them exactly."""
IGNORED_HEADER = "X-Ignored-Fields"
_EXPOSED = [
    "X-Seed",
    "X-Model-Digest",
    "X-Sample-Rate",
    "X-Channels",
    "X-Capped",
    IGNORED_HEADER,
    "Retry-After",
]
"""Response headers exposed to cross-origin pages."""
_MAX_NAMES = 16
_MAX_NAME_CHARS = 64
_AUDIO: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The audio, while it is made or whole.",
        "content": {
            **{kind: {"schema": {"type": "string", "format": "binary"}} for kind in MEDIA_TYPES},
            # Of each event; `data` holds JSON.
            "text/event-stream": {
                "schema": {
                    "type": "object",
                    "properties": {"data": {"type": "string"}},
                    "required": ["data"],
                }
            },
        },
    },
    **ERRORS,
}
_GENERATIONS = {
    **_AUDIO,
    200: {
        "description": "The audio, while it is made or whole; with n above 1, all of it in JSON.",
        "content": _AUDIO[200]["content"] | {"application/json": {"schema": {"type": "object"}}},
    },
}


def create_app(
    engine: AudioEngine,
    settings: ServeSettings | LiveSettings,
    *,
    key_digests: Mapping[str, str] | None = None,
    embed: Embed | None = None,
) -> FastAPI:
    """The application of one ingress.

    Args:
        engine: Engine that generates the audio.
        settings: Settings of the endpoint; live ones may change afterwards.
        key_digests: SHA-256 of each API key by its label; empty disables authentication.
        embed: Computes the speaker embedding of a recording; None accepts no uploads.
    """
    live = settings if isinstance(settings, LiveSettings) else LiveSettings(settings)
    settings = live.now
    app = FastAPI(title="AudioCALM", docs_url="/docs", redoc_url=None)
    add_errors(app, settings.retry_after_s)
    app.add_middleware(
        BodyGuard,
        max_bytes=settings.max_body_bytes,
        timeout_s=settings.client_timeout_s,
        max_bytes_at=dict.fromkeys(_paths_of_recordings(settings), settings.max_upload_bytes),
    )
    app.add_middleware(HeadGuard)
    if key_digests:
        per_minute = settings.requests_per_minute
        limiter = None if per_minute is None else RateLimiter(per_minute)
        app.add_middleware(KeyGuard, digests=key_digests, limiter=limiter)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=_EXPOSED,
        )
    store = None
    if settings.voice_store is not None and embed is not None:
        store = VoiceStore(Folder.at(settings.voice_store), embed, settings.max_voices)
    add_information(app, engine, settings)
    add_voices(app, engine, store)
    _add_audio(app, engine, live, Admission(live, store, embed))
    return app


def _paths_of_recordings(settings: ServeSettings) -> list[str]:
    """Routes whose bodies may hold a recording."""
    more = ["/v1/audio/generations"] if settings.continues_recordings else []
    return ["/v1/audio/voices", *more]


def _add_audio(app: FastAPI, engine: AudioEngine, live: LiveSettings, admission: Admission) -> None:
    def timeouts() -> Timeouts:
        return Timeouts(live.now.timeout_s, live.now.client_timeout_s)

    @app.post("/v1/audio/generations", response_class=Response, responses=_GENERATIONS)
    async def generations(
        body: Annotated[GenerationBody, Body(openapi_examples=GENERATION_EXAMPLES)],
        request: Request,
    ) -> Response:
        """Speech, sound or music from a description."""
        try:
            try:
                job = body.job(_seed(body.seed, body.n), live.now.speech_description)
            except RequestError as error:
                code = "missing_required_parameter"
                raise ApiError(400, error.message, error.field, code) from error
            job = await admission.admit(job, _label(request), body.continuation)
            headers = {"X-Seed": str(job.seed)}
            form = replace(body.form, names_origin=live.now.names_origin)
            if body.n == 1:
                return await respond(engine, job, form, headers=headers, timeouts=timeouts())
            jobs = [replace(job, seed=job.seed + index) for index in range(body.n)]
            return await respond_with_several(
                engine, jobs, form, headers=headers, timeouts=timeouts()
            )
        except ApiError as error:
            raise _renamed(error, {"duration_s": "seconds", "continue": "continuation"}) from error

    @app.post("/v1/audio/speech", response_class=Response, responses=_AUDIO)
    async def speech(
        body: Annotated[SpeechBody, Body(openapi_examples=SPEECH_EXAMPLES)],
        request: Request,
    ) -> Response:
        """Speech, as OpenAI's clients ask for it."""
        require_model(live.now, body.model)
        headers = {IGNORED_HEADER: header_list(body.ignored)} if body.ignored else {}
        try:
            job = body.job(_seed(body.seed), live.now.speech_description)
            job = await admission.admit(job, _label(request))
            headers["X-Seed"] = str(job.seed)
            form = replace(body.form, names_origin=live.now.names_origin)
            return await respond(engine, job, form, headers=headers, timeouts=timeouts())
        except ApiError as error:
            names = {"transcript": "input", "description": "instructions"}
            raise _renamed(error, names) from error


def _label(request: Request) -> str | None:
    """Label of the API key that a request came with."""
    label: str | None = request.scope.get("api_key")
    return label


def _seed(given: int | None, num_seeds: int = 1) -> int:
    """The given seed or a random one; `num_seeds` consecutive seeds must be valid."""
    if given is None:
        return secrets.randbits(_SEED_BITS)
    if given > 2**63 - num_seeds:
        raise ApiError(400, f"is {given}; there are no {num_seeds} seeds from it on", "seed")
    return given


def header_list(names: Sequence[str]) -> str:
    """Field names as a header value: printable ASCII of bounded length."""
    shown = [
        "".join(c if " " < c < "\x7f" and c != "," else "?" for c in name[:_MAX_NAME_CHARS])
        for name in names[:_MAX_NAMES]
    ]
    more = [f"and {len(names) - _MAX_NAMES} more"] if len(names) > _MAX_NAMES else []
    return ", ".join(shown + more)


def _renamed(error: ApiError, names: Mapping[str, str]) -> ApiError:
    """The error with the field name that the request body uses."""
    param = names.get(error.param or "", error.param)
    return ApiError(error.status, error.message, param, error.code)
