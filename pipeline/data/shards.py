"""WebDataset tars: the same bytes for the same clips, and where each member lies in them."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import IncompleteError

MEAN, LOG_STD, JSON = "mean.npy", "log_std.npy", "json"
"""Extensions of a clip's members."""


def clip_key(clip_id: str) -> str:
    """Name of a clip inside tars: safe, short, and without dots, which end the key there."""
    return hashlib.sha256(clip_id.encode()).hexdigest()[:24]


def tar_bytes(members: Mapping[str, bytes]) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """A tar of the members sorted by name, without times or owners.

    Returns:
        The tar, and offset and size in bytes of each member's payload in it.
    """
    sink = io.BytesIO()
    places = {}
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(members):
            info = tarfile.TarInfo(name)
            info.size = len(members[name])
            info.mode = 0o644
            places[name] = (tar.offset + tarfile.BLOCKSIZE, info.size)
            tar.addfile(info, io.BytesIO(members[name]))
    return sink.getvalue(), places


def npy_bytes(array: NDArray[np.generic]) -> bytes:
    """An array as an `.npy` file."""
    sink = io.BytesIO()
    np.lib.format.write_array(sink, np.ascontiguousarray(array), version=(1, 0))
    return sink.getvalue()


def read_npy(payload: bytes, name: str) -> NDArray[np.generic]:
    """Inverse of `npy_bytes`; never unpickles.

    Args:
        payload: The file.
        name: Name of the member, for the error.

    Raises:
        IncompleteError: If the bytes are no array.
    """
    try:
        array: NDArray[np.generic] = np.lib.format.read_array(
            io.BytesIO(payload), allow_pickle=False
        )
    except (ValueError, EOFError) as error:
        raise IncompleteError(
            f"{name}: no .npy file at the offset its index names ({error}); the directory was "
            "changed after it was written, run its stage again"
        ) from error
    return array
