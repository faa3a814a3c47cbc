"""The endpoint for the duration of a block: deployed on the connected Ray, taken down after."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from ray import serve

from model.bundle import BundleError
from pipeline.errors import SettingsError
from pipeline.serving.replica import build
from pipeline.serving.settings import ServeSettings
from pipeline.storage import Folder


@contextlib.contextmanager
def deployed(
    settings: ServeSettings, name: str, voices: dict[str, list[float]] | None = None
) -> Iterator[str]:
    """Deploy an application and wait until it serves.

    Args:
        settings: The endpoint; a relative bundle path is made absolute for the replicas.
        name: Name of the Serve application.
        voices: Speaker embeddings by voice name, beyond those of the bundle.

    Yields:
        Its URL.

    Raises:
        BundleError: If there is no bundle; found here, before replicas start and fail.
        SettingsError: If the port is taken.
    """
    bundle = Folder.at(settings.bundle)
    if not bundle.exists("bundle.json"):
        raise BundleError(f"{bundle.uri} is no bundle: it has no bundle.json")
    _check_port(settings.host, settings.port)
    absolute = settings.model_copy(update={"bundle": bundle.uri})
    serve.start(http_options={"host": settings.host, "port": settings.port})
    try:
        serve.run(build(absolute, voices or {}), name=name, route_prefix="/")
        shown = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
        yield f"http://{shown}:{settings.port}"
    finally:
        serve.shutdown()


def _check_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SettingsError(
                f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port"
            ) from error
