"""Routes of voices: list, add from a recording, remove."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from pipeline.serving.errors import ERRORS, ApiError
from pipeline.serving.schemas import DEFAULT_VOICE, VoiceBody
from pipeline.serving.stream import AudioEngine, Service
from pipeline.serving.voice_store import VoiceStore

_FORM_SCHEMA = {
    "type": "object",
    "required": ["name", "audio_sample", "consent"],
    "properties": {
        "name": {"type": "string"},
        "audio_sample": {"type": "string", "format": "binary"},
        "consent": {"type": "string"},
    },
}
_VOICE_REQUEST = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": VoiceBody.model_json_schema()},
            "multipart/form-data": {"schema": _FORM_SCHEMA},
        },
    }
}
"""The body of a new voice in OpenAPI: FastAPI describes only bodies that it parses itself."""


def add_voices(app: FastAPI, engine: AudioEngine, store: VoiceStore | None) -> None:
    """Add the routes.

    Args:
        app: The application.
        engine: Engine that states the voices of the bundle.
        store: Uploaded voices; None refuses uploads.
    """

    @app.get("/v1/audio/voices", responses=ERRORS)
    async def voices() -> dict[str, Any]:
        """Names for `voice` with descriptions, the width of `voice_embedding`, and whether voices
        of clients are kept."""
        uploaded = [] if store is None else await asyncio.to_thread(store.names)
        listed = _listed(await engine.service(), uploaded)
        return listed | {"keeps_voices": store is not None}

    @app.post("/v1/audio/voices", responses=ERRORS, openapi_extra=_VOICE_REQUEST)
    async def add_voice(request: Request) -> dict[str, Any]:
        """Create a voice from a recording, with a statement of the speaker's consent."""
        body = await _voice_body(request)
        kept = _required(store)
        service = await engine.service()
        if body.name in {DEFAULT_VOICE, *service.voices, *service.aliases}:
            raise ApiError(409, f"{body.name!r} is a voice of the model", "name", "conflict")
        added_by = request.scope.get("api_key")
        voice = await asyncio.to_thread(
            kept.add, body.name, body.audio_sample, body.consent, added_by
        )
        return {
            "object": "audio.voice",
            "id": voice.name,
            "name": voice.name,
            "created_at": voice.created_at,
        }

    @app.delete("/v1/audio/voices/{name}", responses=ERRORS)
    async def delete_voice(name: str) -> dict[str, Any]:
        """Delete an uploaded voice."""
        if not await asyncio.to_thread(_required(store).delete, name):
            raise ApiError(404, f"there is no voice {name[:80]!r} to delete", "name", "not_found")
        return {"object": "audio.voice", "id": name, "deleted": True}


def _listed(service: Service, uploaded: Sequence[str]) -> dict[str, Any]:
    """The answer that lists the voices of the model and those that were uploaded."""
    own = (DEFAULT_VOICE, *service.voices)
    names = {name: name for name in own} | dict(service.aliases)
    descriptions = {DEFAULT_VOICE: _default_description(service), **service.voices}
    names |= {name: name for name in uploaded}
    return {
        "voices": [
            {
                "id": name,
                "name": name if name == voice else f"{name} ({voice})",
                "description": descriptions.get(voice, ""),
                "is_uploaded": name in uploaded,
            }
            for name, voice in names.items()
        ],
        "speaker_dim": service.speaker_dim,
        "sample_rate": service.layout.sample_rate,
        "num_channels": service.layout.num_channels,
    }


def _default_description(service: Service) -> str:
    """What the name `default` stands for."""
    if service.default_voice is None:
        return "As the request describes it."
    return f"As the request describes it; without a description, {service.default_voice}."


def _required(store: VoiceStore | None) -> VoiceStore:
    if store is None:
        raise ApiError(403, "this endpoint keeps no voices; its operator sets voice_store")
    return store


async def _voice_body(request: Request) -> VoiceBody:
    """The body, out of a form or of JSON.

    Raises:
        RequestValidationError: With the fields that are wrong.
    """
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        return await _form_body(request)
    try:
        fields = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is no JSON that can be read: {error}") from error
    return _validated(fields)


async def _form_body(request: Request) -> VoiceBody:
    async with request.form(max_files=1, max_fields=8) as form:
        fields: dict[str, Any] = dict(form)
        sample = fields.pop("audio_sample", None)
        if not isinstance(sample, UploadFile):
            raise ApiError(
                400, "is no file; send one", "audio_sample", "missing_required_parameter"
            )
        recording = await sample.read()
    return _validated({**fields, "audio_sample": recording})


def _validated(fields: Any) -> VoiceBody:
    try:
        return VoiceBody.model_validate(fields)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error
