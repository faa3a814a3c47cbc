"""An S3 server on this machine, found by the usual variables of the environment."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.storage import Folder


class Outage:
    """Answers a share of the requests of a WSGI application with an error; seeded.

    Attributes:
        share: Of the requests, in [0, 1].
        status: Line of the answer.
        num_failed: Requests that it took.
    """

    def __init__(self) -> None:
        self.share, self.status, self.num_failed = 0.0, "503 Slow Down", 0
        self._random, self._lock = random.Random(0), threading.Lock()
        self.app: Any = None

    def __call__(self, environ: Any, start_response: Any) -> Any:
        with self._lock:
            is_failing = self._random.random() < self.share
            self.num_failed += is_failing
        if not is_failing:
            return self.app(environ, start_response)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response(self.status, [("Content-Length", "0")])
        return [b""]


@contextlib.contextmanager
def s3_bucket(name: str, outage: Outage | None = None) -> Iterator[str]:
    """URI of an empty bucket; endpoint and credentials lie in the environment meanwhile."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    if outage is not None:
        outage.app, server._server.app = server._server.app, outage
    endpoint = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as environment:
        for key, value in {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            environment.setenv(key, value)
        request = urllib.request.Request(f"{endpoint}/{name}", method="PUT")
        urllib.request.urlopen(request).close()
        try:
            yield f"s3://{name}"
        finally:
            server.stop()


def upload(source: Path, uri: str) -> str:
    """Every file below a local folder, put below a URI; returns the URI."""
    target = Folder.at(uri)
    for path in sorted(source.rglob("*")):
        if path.is_file():
            target.write_bytes(path.relative_to(source).as_posix(), path.read_bytes())
    return uri


def objects(uri: str) -> dict[str, bytes]:
    """Contents of every object below a URI, by relative name."""
    folder = Folder.at(uri)
    return {name: folder.read_bytes(name) for name in folder.files(recursive=True)}
