"""Music with genres in the layout of the Free Music Archive data set: one table, several sizes."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence

from model.text import clean_text
from pipeline.data.corpora.base import CorpusFolder, Place
from pipeline.data.corpora.entries import rejecting, table_entries
from pipeline.data.corpora.fields import as_number
from pipeline.data.corpora.licences import licence_of
from pipeline.data.corpora.manifests import BadLine, Line, ManifestError, read_table
from pipeline.data.rejects import Reason
from pipeline.data.schema import ClipRow, Reject

METADATA = "fma_metadata"
"""Folder of the tables."""
SIZES = ("small", "medium", "large")
"""Subsets, each inside the next; `full` is the last one with whole tracks."""
_SPLITS = {"training": "train", "validation": "validation", "test": "test"}
_NEEDED = (("set", "split"), ("set", "subset"), ("track", "genre_top"), ("track", "title"))
_NUM_HEADER_ROWS = 3

Column = tuple[str, str]


class Fma:
    """`fma_metadata/tracks.csv`, with a header of three rows, and `fma_<size>/000/000002.mp3`.

    Rows of larger subsets than the audio that is there are not read. Where a track is there in
    several sizes, the largest is taken.
    """

    layout = "fma"

    def matches(self, folder: CorpusFolder) -> bool:
        """Whether the table and audio of some size lie in the folder."""
        return f"{METADATA}/tracks.csv" in folder.names and bool(_sizes(folder))

    def read(self, folder: CorpusFolder) -> Iterator[ClipRow | Reject]:
        """Every row of the subsets that are there."""
        name = f"{METADATA}/tracks.csv"
        if not _sizes(folder):
            yield folder.reject(Reason.MISSING_AUDIO, "none of fma_small to fma_full is there")
            return
        for other in folder.names:
            if other.startswith(f"{METADATA}/"):
                folder.claim(other)
        genres: dict[str, str] = {}
        yield from _read_genres(folder, genres)
        try:
            yield from _read_tracks(folder, name, genres)
        except ManifestError as error:
            yield folder.reject_manifest(error, name)


def _sizes(folder: CorpusFolder) -> list[str]:
    """Sizes whose audio is there, the largest first."""
    names = {name.partition("/")[0] for name in folder.audio}
    return [size for size in ("full", *reversed(SIZES)) if f"fma_{size}" in names]


def _read_genres(folder: CorpusFolder, genres: dict[str, str]) -> Iterator[Reject]:
    name = f"{METADATA}/genres.csv"
    if name not in folder.names:
        return
    for entry in table_entries(folder, name, ("genre_id", "title")):
        if isinstance(entry, Reject):
            yield entry
        else:
            genres[entry.values["genre_id"].strip()] = clean_text(entry.values["title"])[0]


def _read_tracks(
    folder: CorpusFolder, name: str, genres: Mapping[str, str]
) -> Iterator[ClipRow | Reject]:
    sizes = _sizes(folder)
    present = set(SIZES) if "full" in sizes else set(SIZES[: SIZES.index(sizes[0]) + 1])
    header: list[Line] = []
    columns: dict[Column, int] = {}
    for line in read_table(folder.lines(name), ","):
        if isinstance(line, BadLine):
            yield folder.reject_line(line, name)
        elif len(header) < _NUM_HEADER_ROWS:
            header.append(line)
            columns = _columns(header) if len(header) == _NUM_HEADER_ROWS else {}
        elif len(line.cells) != len(header[0].cells):
            yield folder.reject(
                Reason.MALFORMED,
                f"{len(line.cells)} cells where the header has {len(header[0].cells)}",
                name,
                line=line.number,
            )
        else:
            row = {column: line.cells[at].strip() for column, at in columns.items()}
            if row["set", "subset"] in present:
                yield _clip(folder, Place(name, line.number), row, sizes, genres)


def _columns(header: Sequence[Line]) -> dict[Column, int]:
    """Index of every column by the first two header rows; the track's id is `("", "")`."""
    pairs = zip(header[0].cells, header[1].cells, strict=False)
    columns = {(top.strip(), below.strip()): at for at, (top, below) in enumerate(pairs)}
    missing = [f"{top}.{below}" for top, below in _NEEDED if (top, below) not in columns]
    if missing or ("", "") not in columns:
        raise ManifestError(
            Reason.MISSING_COLUMN,
            f"the header lacks {', '.join(missing) or 'the column of ids'}; no row was read",
            line=1,
            field=", ".join(missing) or None,
        )
    return columns


@rejecting
def _clip(
    folder: CorpusFolder,
    place: Place,
    row: Mapping[Column, str],
    sizes: Sequence[str],
    genres: Mapping[str, str],
) -> ClipRow | Reject:
    number = row["", ""].zfill(6)
    paths = [posixpath.join(f"fma_{size}", number[:3], f"{number}.mp3") for size in sizes]
    found = [path for path in paths if path in folder.names]
    for path in found:
        folder.claim(path)
    if not number.isdecimal() or not found:
        reason = Reason.MISSING_AUDIO if number.isdecimal() else Reason.MALFORMED
        raise ManifestError(reason, f"no audio {paths[0]!r}", field="track_id")
    ids = row.get(("track", "genres"), "").strip("[] ").split(",")
    tags = [clean_text(row["track", "genre_top"])[0], *(genres.get(one.strip(), "") for one in ids)]
    is_whole = found[0].startswith("fma_full/")
    language = row.get(("track", "language_code"), "").lower()
    return folder.clip(
        number,
        found[0],
        modality="music",
        place=place,
        tags=tuple(dict.fromkeys(filter(None, tags))),
        declared_duration_s=as_number(row.get(("track", "duration"), "")) if is_whole else None,
        title=clean_text(row["track", "title"])[0] or None,
        attribution=clean_text(row.get(("artist", "name"), ""))[0] or None,
        licence=licence_of(row.get(("track", "license"), "")),
        language=language or None,
        split=_SPLITS.get(row["set", "split"]),
    )
