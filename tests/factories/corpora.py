"""Audio files and corpora that a test writes itself, and the way to read them back."""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from pipeline.data.corpora.base import CorpusFacts
from pipeline.data.corpora.catalogue import SplitRule
from pipeline.data.corpora.discover import Source, discover
from pipeline.data.corpora.file_table import FileFact
from pipeline.data.corpora.found import Discovery, FoundCorpus, read_part
from pipeline.data.schema import ClipRow, Reject, clip_from_columns
from pipeline.storage import Folder

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


@dataclass(frozen=True)
class ReadCorpus:
    """A corpus with all its items."""

    name: str
    layout: str
    uri: str
    moved: dict[str, int]
    clips: list[tuple[ClipRow, FileFact]]
    rejects: list[Reject]


@dataclass(frozen=True)
class Searched:
    """All corpora of some folders, and what was ignored."""

    corpora: list[ReadCorpus]
    ignored: dict[str, int]


def found_in(store: Folder, *folders: Path | str, **facts: Any) -> Discovery:
    """What is found in the folders, left in a store."""
    layout = facts.pop("layout", None)
    rule = SplitRule(validation_share=0.1, test_share=0.1, min_speakers=3, is_declared_kept=True)
    sources = [
        Source(uri=str(folder), layout=layout, facts=CorpusFacts(**facts)) for folder in folders
    ]
    return discover(sources, rule, store)


def search(*folders: Path | str, **facts: Any) -> Searched:
    """Everything found in the folders."""
    with tempfile.TemporaryDirectory() as store:
        found = found_in(Folder.at(store), *folders, **facts)
        return Searched([_read_whole(found.store, each) for each in found.corpora], found.ignored)


def _read_whole(store: Folder, corpus: FoundCorpus) -> ReadCorpus:
    items = [
        json.loads(row.item)
        for part in corpus.parts
        for group in read_part(store, part)
        for row in group
    ]
    clips = [
        (clip_from_columns(item["clip"]), FileFact(**item["file"]))
        for item in items
        if "clip" in item
    ]
    rejects = [Reject(**item["reject"]) for item in items if "reject" in item]
    assert (len(clips), len(rejects)) == (corpus.num_clips, corpus.num_rejects)
    return ReadCorpus(corpus.name, corpus.layout, corpus.uri, corpus.moved, clips, rejects)


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
