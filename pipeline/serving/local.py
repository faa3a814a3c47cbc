"""The endpoint for the duration of a block: deployed on the connected Ray, taken down after."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Iterator

from ray import serve
from ray.exceptions import RayError
from ray.serve.context import _get_global_client
from ray.serve.exceptions import RayServeException

from model.bundle.shipped import SHIPPED, BundleError, bundle_folder
from pipeline.cluster import require_resources
from pipeline.errors import PipelineError, SettingsError
from pipeline.serving.replica import build
from pipeline.serving.settings import ServeSettings
from pipeline.serving.uploads import Embed
from pipeline.storage import Folder

logger = logging.getLogger(__name__)

_PROXY_S = 600.0
"""Timeout for the start of Serve's proxies on a busy machine, seconds; Serve's own is 60 s."""
_POLL_S = 1.0
_SLACK_S = 10.0
"""Added to the request timeout for the proxy, so that the 504 of the ingress arrives."""


class NotDeployedError(PipelineError):
    """Ray Serve could not start the application."""


@contextlib.contextmanager
def deployed(
    settings: ServeSettings,
    name: str,
    voices: dict[str, list[float]] | None = None,
    embed: Embed | None = None,
) -> Iterator[str]:
    """Deploy an application and wait until it serves.

    Where Ray Serve runs on the cluster already it is shared: this application joins it and is the
    only one to go at the end. Otherwise Serve starts and ends with the block.

    Args:
        settings: The endpoint; a relative bundle path is made absolute for the replicas.
        name: Name of the Serve application.
        voices: Speaker embeddings by voice name, beyond those of the bundle.
        embed: Computes the speaker embedding of an uploaded recording.

    Yields:
        Its URL.

    Raises:
        BundleError: If there is no bundle; found here, before replicas start and fail.
        SettingsError: If the port is taken, if Serve runs already and listens elsewhere or has an
            application of this name, or if the connected Ray can never hold the replicas.
        NotDeployedError: If Serve or the application does not start.
    """
    bundle = _checked_bundle(settings.bundle)
    address = _serve_address()
    if address is None:
        _check_port(settings.host, settings.port)
    else:
        _check_shared(address, settings, name)
    _check_resources(settings)
    store = settings.voice_store and Folder.at(settings.voice_store).uri
    absolute = settings.model_copy(update={"bundle": bundle, "voice_store": store})
    try:
        with _one_line(name):
            _start(settings)
            serve.run(build(absolute, voices or {}, embed), name=name, route_prefix="/")
        shown = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
        yield f"http://{shown}:{settings.port}"
    finally:
        if address is None:
            serve.shutdown()
        else:
            _delete(name)


def _check_resources(settings: ServeSettings) -> None:
    """Refuse replicas for which the cluster has no resources."""
    gpus = settings.gpus_per_replica
    if gpus is None:  # it takes a GPU where there is one
        gpus = 1.0 if settings.device == "cuda" else 0.0
    require_resources(
        "serve",
        {"CPU": settings.cpus_per_replica, "GPU": gpus},
        max(1, settings.autoscale.min_replicas),
        remedy="lower cpus_per_replica, gpus_per_replica or autoscale.min_replicas; "
        "device=cpu with gpus_per_replica=0 serves without a GPU",
    )


def _checked_bundle(name: str) -> str:
    """A bundle as every replica finds it: the name of a shipped one, or an absolute URI."""
    if name in SHIPPED:
        bundle_folder(name)
        return name
    bundle = Folder.at(name)
    if not bundle.exists("bundle.json"):
        raise BundleError(f"{bundle.uri} is no bundle: it has no bundle.json")
    return bundle.uri


def _start(settings: ServeSettings) -> None:
    """Start Serve, or join the one that runs."""
    http = {
        "host": settings.host,
        "port": settings.port,
        # The proxy takes the audio faster than a slow client; here the client's time ends too.
        "request_timeout_s": settings.timeout_s + _SLACK_S,
    }
    try:
        serve.start(http_options=http)
        return
    except TimeoutError as error:
        logger.warning("%s The machine is busy; waiting for up to %.0f s more", error, _PROXY_S)
    deadline = time.monotonic() + _PROXY_S
    while not all(status == "HEALTHY" for status in serve.status().proxies.values()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"Serve's HTTP proxy did not start in {_PROXY_S:.0f} s")
        time.sleep(_POLL_S)


def _serve_address() -> tuple[str | None, int] | None:
    """Host and port of the Serve that runs on the connected cluster; None if none runs."""
    # Ray's public interface tells neither, and ignores the options of a second start.
    client = _get_global_client(raise_if_no_controller_running=False)
    return None if client is None else (client.http_config.host, client.http_config.port)


def _check_shared(address: tuple[str | None, int], settings: ServeSettings, name: str) -> None:
    host, port = address
    if host is None:
        raise SettingsError("Ray Serve runs on this cluster already, without HTTP; restart it")
    if address != (settings.host, settings.port):
        raise SettingsError(
            f"Ray Serve runs on this cluster already and listens on {host}:{port}, not on "
            f"{settings.host}:{settings.port}; give --host {host} --port {port}"
        )
    if name in serve.status().applications:
        raise SettingsError(
            f"Ray Serve runs an application {name!r} on this cluster already; "
            "delete it first, or use it"
        )


@contextlib.contextmanager
def _one_line(name: str) -> Iterator[None]:
    """Turn a failed start into an error of one line, without the traceback of the replica."""
    try:
        yield
    # Serve raises RuntimeError where replicas fail, and the others where it fails itself.
    except (RuntimeError, TimeoutError, RayServeException, RayError) as error:
        said = [_last_line(str(error)) or type(error).__name__, *_failed_replicas(name)]
        raise NotDeployedError(
            f"Ray Serve could not start {name!r}: {'; '.join(said)} (--verbose tells all)"
        ) from error


def _failed_replicas(name: str) -> Iterator[str]:
    """Why the replicas of each failed deployment ended, in one line a deployment."""
    # Serve's error names the deployments only; what a constructor raised stands in their status.
    with contextlib.suppress(RuntimeError, RayServeException, RayError):
        application = serve.status().applications.get(name)
        deployments = application.deployments if application else {}
        for deployment, status in deployments.items():
            if status.status == "DEPLOY_FAILED":
                logger.debug("%s: %s", deployment, status.message)
                yield f"{deployment}: {_last_line(status.message)}"


def _last_line(text: str) -> str:
    """Last line of a traceback: the error itself."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _delete(name: str) -> None:
    try:
        serve.delete(name)
    except TimeoutError:
        logger.warning("%s still finishes its requests; Ray Serve removes it after them", name)


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
