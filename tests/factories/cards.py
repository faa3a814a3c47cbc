"""Completes a directory that a test wrote by hand, as a stage would."""

from __future__ import annotations

from typing import Any

from pipeline.storage import Folder, sha256


def finish(folder: Folder, card: dict[str, Any]) -> None:
    """Write card and marker; the card names every file below."""
    names = [name for name in folder.files(recursive=True) if "/" in name]
    folder.finish(card, [(name, sha256(folder.read_bytes(name))) for name in names])
