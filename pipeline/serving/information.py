"""Routes without audio: playground, health, readiness and models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse
from starlette.staticfiles import StaticFiles

from pipeline.serving.errors import ERRORS, ApiError
from pipeline.serving.keys import FILES_PATH
from pipeline.serving.settings import ServeSettings
from pipeline.serving.stream import AudioEngine

PLAYGROUND = Path(__file__).parent / "playground"
"""Folder of the page and the files that it loads."""
_OWN_RESOURCES = "default-src 'self'; img-src data:; media-src blob:"
"""Content security policy of the page: the browser loads nothing from elsewhere."""


def require_model(settings: ServeSettings, name: str) -> None:
    """Refuse the name of a model that is not served.

    Raises:
        ApiError: With status 404, as OpenAI's API answers it.
    """
    names = _model_names(settings)
    if name not in names:
        raise ApiError(
            404,
            f"{name[:80]!r} does not exist; there is {', '.join(names)}",
            "model",
            "model_not_found",
        )


def add_information(app: FastAPI, engine: AudioEngine, settings: ServeSettings) -> None:
    """Add the routes.

    Args:
        app: The application.
        engine: Engine that states whether the model is ready.
        settings: Settings of the endpoint, with the names of the model.
    """

    @app.get("/", include_in_schema=False)
    async def playground() -> FileResponse:
        """The playground page."""
        headers = {"Content-Security-Policy": _OWN_RESOURCES}
        return FileResponse(PLAYGROUND / "index.html", media_type="text/html", headers=headers)

    app.mount(FILES_PATH, StaticFiles(directory=PLAYGROUND))

    @app.get("/health", responses=ERRORS)
    async def health() -> dict[str, str]:
        """Whether the ingress answers."""
        return {"status": "ok"}

    @app.get("/ready", responses=ERRORS)
    async def ready() -> dict[str, Any]:
        """200 once audio can be made, 503 with Retry-After before."""
        service = await engine.service()
        return {"status": "ready", "bundle": service.digest}

    @app.get("/v1/models", responses=ERRORS)
    async def models() -> dict[str, Any]:
        """The model under each of its names, as OpenAI's clients list models."""
        return {"object": "list", "data": [_model(settings, n) for n in _model_names(settings)]}

    @app.get("/v1/models/{name}", responses=ERRORS)
    async def model(name: str) -> dict[str, Any]:
        """The model under one of its names."""
        require_model(settings, name)
        return _model(settings, name)

    @app.get("/v1/audio/models", responses=ERRORS)
    async def audio_models() -> dict[str, Any]:
        """The names of the model in the format that chat front ends expect."""
        return {"models": [{"id": name, "name": name} for name in _model_names(settings)]}


def _model_names(settings: ServeSettings) -> list[str]:
    return list(dict.fromkeys((settings.model_name, *settings.model_aliases)))


def _model(settings: ServeSettings, name: str) -> dict[str, Any]:
    """One entry; `root` is the model that an alias stands for."""
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "audiocalm",
        "root": settings.model_name,
    }
