"""Files that are created only where there are none: by a hard link, or a conditional write on S3.

pyarrow has no conditional writes. On `s3://` boto3 sends the header `If-None-Match: *` where it is
installed; it is no dependency of this package, but part of the images of Ray.
"""

from __future__ import annotations

import importlib
import logging
import os
import uuid
from typing import Any

from pipeline.storage import ASIDE, Folder

logger = logging.getLogger(__name__)

_EXISTS = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})
"""Codes of S3 for an object that is there, or that another writer is creating at this moment."""


def create_file(folder: Folder, name: str, payload: bytes) -> bool | None:
    """Create a small file in one step, with its contents.

    Args:
        folder: Directory; a local one must exist.
        name: Name of the file in the directory.
        payload: Its contents.

    Returns:
        True if this call created it, False if there is one already, and None if this storage
        cannot create files so; nothing is written then. Of several callers one at most gets True.
        A store that ignores conditions answers True although it replaced a file; a caller that must
        know reads the file again.
    """
    if folder.is_local:
        return _link(folder, name, payload)
    if folder.filesystem.type_name == "s3":
        return _put(folder, name, payload)
    return None


def _link(folder: Folder, name: str, payload: bytes) -> bool | None:
    aside = f"{ASIDE}{uuid.uuid4().hex}-{name}"
    try:
        folder.write_bytes(aside, payload)
        os.link(folder.join(aside), folder.join(name))
    except FileExistsError:
        return False
    except OSError:  # no hard links here, or another driver has swept the file
        return None
    finally:
        folder.delete(aside)
    return True


def _put(folder: Folder, name: str, payload: bytes) -> bool | None:
    client = _client(folder)
    if client is None:
        return None
    bucket, _, key = folder.join(name).partition("/")
    try:
        client.put_object(Bucket=bucket, Key=key, Body=payload, IfNoneMatch="*")
    except client.exceptions.ClientError as error:
        code = error.response["Error"]["Code"]
        if code in _EXISTS:
            return False
        logger.info("%s: no conditional write: %s", folder.uri, error)
        return None
    return True


def _client(folder: Folder) -> Any:
    """A client of boto3 for a directory whose account and endpoint are those of the environment."""
    if any(sign in folder.uri for sign in "@?"):  # the URI has credentials or options of its own
        return None
    try:
        boto3 = importlib.import_module("boto3")
    except ImportError:
        return None
    return boto3.client("s3")
