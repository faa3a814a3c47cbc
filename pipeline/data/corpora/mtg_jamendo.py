"""Music with tags in the MTG-Jamendo layout: ragged tables of `category---tag`."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from model.text import clean_text
from pipeline.data.corpora.base import CorpusFolder, Place
from pipeline.data.corpora.entries import absent_part, cell_lines, read_text, rejecting
from pipeline.data.corpora.fields import as_number
from pipeline.data.corpora.licences import licence_of
from pipeline.data.corpora.manifests import Line, ManifestError
from pipeline.data.rejects import Reason
from pipeline.data.schema import ClipRow, Reject
from pipeline.data.word_files import read_words

_CLEANED = ("autotagging", "raw_30s_cleantags_50artists", "raw_30s_cleantags", "raw_30s", "raw")
_SUBSETS = tuple(
    f"autotagging_{name}" for name in ("top50tags", "genre", "instrument", "moodtheme")
)
TABLES = tuple(f"{name}.tsv" for name in _CLEANED + _SUBSETS)
"""Tables of tags; the first that is there is read, as the others repeat its tracks."""
LICENCES = "audio_licenses.txt"
"""Path, title and artist, licence: three lines for each track."""
_COLUMNS = ["TRACK_ID", "ARTIST_ID", "ALBUM_ID", "PATH", "DURATION", "TAGS"]
_WORK = re.compile(r"(?P<title>.+) by (?P<artist>.+?) from Jamendo: \S+")
_PATH = re.compile(r"\d+/\d+\.mp3")


_TAGS = Path(__file__).parent / "mtg_jamendo_tags.yaml"
_CATEGORIES = {"genre": "genre", "instrument": "instrument", "mood/theme": "mood"}


@dataclass(frozen=True)
class Work:
    """Facts of a track in the list of licences."""

    title: str | None
    artist: str | None
    licence: str | None


class MtgJamendo:
    """`data/autotagging.tsv` beside audio in folders `00` to `99`.

    The ending may be `.mp3` or, of the small version, `.low.mp3`. The split is `split-0` of
    `data/splits`. Rows of folders that were not downloaded are not read.
    """

    layout = "mtg_jamendo"

    def matches(self, folder: CorpusFolder) -> bool:
        """Whether a table of tags lies in the folder or in `data`, and audio below it."""
        return bool(folder.audio) and _table(folder) is not None

    def read(self, folder: CorpusFolder) -> Iterator[ClipRow | Reject]:
        """Every row of the first table."""
        name = _table(folder)
        if name is None:
            yield folder.reject(Reason.MISSING_AUDIO, f"none of {', '.join(TABLES)} is there")
            return
        for other in folder.names:
            if _is_table(other):
                folder.claim(other)
        works: dict[str, Work] = {}
        yield from read_works(folder, works)
        splits = _read_splits(folder, name)
        present = {posixpath.basename(posixpath.dirname(audio)) for audio in folder.audio}
        num_absent = 0
        for line in cell_lines(folder, name, "\t"):
            if isinstance(line, Reject):
                yield line
            elif list(line.cells) == _COLUMNS:
                continue
            elif len(line.cells) > 3 and line.cells[3].partition("/")[0] not in present:
                num_absent += 1
            else:
                yield _clip(folder, Place(name, line.number), line, works, splits)
        yield from absent_part(folder, name, num_absent, "their folders")


def read_works(folder: CorpusFolder, works: dict[str, Work]) -> Iterator[Reject]:
    """Fill in works by path from the list of licences; yields what is wrong with it."""
    name = folder.first_of((LICENCES, f"data/{LICENCES}"))
    if name is None:
        return
    text = read_text(folder, name)
    if isinstance(text, Reject):
        yield text
        return
    lines = [line.strip() for line in text.splitlines()]
    for path, work, licence in zip(lines, lines[1:], lines[2:], strict=False):
        if _PATH.fullmatch(path):
            match = _WORK.fullmatch(work)
            works[path] = Work(
                clean_text(match["title"])[0] if match else None,
                clean_text(match["artist"])[0] if match else None,
                licence_of(licence),
            )


def tag_of(cell: str) -> str:
    """`genre: hip hop` for `genre---hiphop`; empty if there is no tag after the category."""
    category, _, tag = (part.strip() for part in cell.partition("---"))
    words = read_words(_TAGS).get(tag, tag)
    return f"{_CATEGORIES[category]}: {words}" if words and category in _CATEGORIES else words


def _is_table(name: str) -> bool:
    return name.endswith(".tsv") and name.startswith(("data/", "stats/", "autotagging", "raw"))


def _table(folder: CorpusFolder) -> str | None:
    names = (posixpath.join(place, name) for name in TABLES for place in ("data", ""))
    header = "\t".join(_COLUMNS).encode()
    return next((n for n in names if n in folder.names and folder.head(n).startswith(header)), None)


def _read_splits(folder: CorpusFolder, table: str) -> dict[str, str]:
    """Split by track id, of the tracks that the published split keeps."""
    splits = {}
    stem = posixpath.basename(table).removesuffix(".tsv")
    for split in ("train", "validation", "test"):
        for prefix in (stem, "autotagging"):
            name = f"data/splits/split-0/{prefix}-{split}.tsv"
            if name in folder.names:
                lines = cell_lines(folder, name, "\t")
                splits.update({line.cells[0]: split for line in lines if isinstance(line, Line)})
                break
    return splits


@rejecting
def _clip(
    folder: CorpusFolder,
    place: Place,
    line: Line,
    works: dict[str, Work],
    splits: dict[str, str],
) -> ClipRow | Reject:
    tags = [tag_of(cell) for cell in line.cells[5:] if "---" in cell]
    if len(line.cells) < 6 or not _PATH.fullmatch(line.cells[3]) or not all(tags) or not tags:
        raise ManifestError(
            Reason.MALFORMED,
            f"not ids, path, duration and category---tag between tabs: {line.text[:60]!r}",
        )
    track, path = line.cells[0], line.cells[3]
    part, number = path.removesuffix(".mp3").split("/")
    audio = folder.find_named([number, f"{number}.low"], within=part, field="PATH")
    work = works.get(path, Work(None, None, None))
    return folder.clip(
        track,
        audio,
        modality="music",
        place=place,
        tags=tuple(dict.fromkeys(tags)),
        declared_duration_s=as_number(line.cells[4]),
        title=work.title,
        attribution=work.artist,
        licence=work.licence,
        split=splits.get(track),
    )
