"""An S3 server on this machine, found by the usual variables of the environment."""

from __future__ import annotations

import contextlib
import logging
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.storage import Folder


@contextlib.contextmanager
def s3_bucket(name: str) -> Iterator[str]:
    """URI of an empty bucket; endpoint and credentials lie in the environment meanwhile."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
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
