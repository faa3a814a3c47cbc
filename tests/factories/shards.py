"""Tars as the webdataset package reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from webdataset.autodecode import Decoder, basichandlers
from webdataset.tariterators import group_by_keys, tar_file_expander


def read_webdataset(path: Path) -> list[dict[str, Any]]:
    """Samples of a tar, grouped and decoded by webdataset, which would leave its file open."""
    decode = Decoder([basichandlers])
    with path.open("rb") as stream:
        members = tar_file_expander([{"url": str(path), "stream": stream}])
        return [decode(sample) for sample in group_by_keys(members)]
