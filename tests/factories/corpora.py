"""Audio files and corpora that a test writes itself, and the way to read them back."""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from pipeline.data.corpora.base import CorpusFacts
from pipeline.data.corpora.catalogue import SplitRule
from pipeline.data.corpora.discover import Discovery, Source, discover
from pipeline.data.schema import ClipRow, Reject

RATE = 8_000


def write_tone(path: Path, duration_s: float = 0.4, seed: int = 0, **how: Any) -> Path:
    """A tone whose pitch tells the seed, in the container of the ending; 16 bits are exact."""
    time = np.arange(round(duration_s * RATE)) / RATE
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = np.round(10_000 * np.sin(2 * np.pi * (200 + 7 * seed) * time)).astype(np.int16)
    soundfile.write(path, wave, RATE, **how)
    return path


def write_corpus(folder: Path, files: Mapping[str, str | bytes | None]) -> Path:
    """Files by name: text, bytes, or None for a tone unlike all others."""
    for seed, (name, contents) in enumerate(files.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if contents is None:
            write_tone(path, seed=seed)
        else:
            path.write_bytes(contents.encode() if isinstance(contents, str) else contents)
    return folder


def write_tar(path: Path, members: Mapping[str, str | bytes | None]) -> Path:
    """A tar of members by name: text, bytes, or None for a tone unlike all others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive, tempfile.TemporaryDirectory() as folder:
        for seed, (name, contents) in enumerate(members.items()):
            if contents is None:
                contents = write_tone(Path(folder) / Path(name).name, seed=seed).read_bytes()
            payload = contents.encode() if isinstance(contents, str) else contents
            member = tarfile.TarInfo(name)
            member.size = len(payload)
            archive.addfile(member, io.BytesIO(payload))
    return path


def search(*folders: Path | str, layout: str | None = None, **facts: Any) -> Discovery:
    """Everything found in the folders."""
    rule = SplitRule(validation_share=0.1, test_share=0.1, min_speakers=3, is_declared_kept=True)
    sources = [
        Source(uri=str(folder), layout=layout, facts=CorpusFacts(**facts)) for folder in folders
    ]
    return discover(sources, rule)


def read_corpus(folder: Path, layout: str, **facts: Any) -> tuple[dict[str, ClipRow], list[Reject]]:
    """Clips by key and rejects of the one corpus in a folder, recognised as `layout`."""
    found = {corpus.layout: corpus for corpus in search(folder, **facts).corpora}
    assert layout in found, f"recognised as {sorted(found)}"
    corpus = found[layout]
    clips = {row.clip_id.removeprefix(f"{corpus.name}/"): row for row, _ in corpus.clips}
    assert len(clips) == len(corpus.clips)
    others = [reject for other in found.values() for reject in other.rejects]
    return clips, others


def reasons(rejects: list[Reject]) -> list[tuple[str, int | None, str | None]]:
    """Reason, line and field of every reject."""
    return [(row.reason, row.line, row.field) for row in rejects]
