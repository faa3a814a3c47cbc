"""Entries of a manifest with their place, and a reject for each that cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from pipeline.data.corpora.base import CorpusFolder, Place
from pipeline.data.corpora.manifests import (
    BadLine,
    JsonObject,
    Line,
    ManifestError,
    as_object,
    read_json,
    read_lines,
    read_table,
)
from pipeline.data.rejects import Reason
from pipeline.data.schema import ClipRow, Reject

T = TypeVar("T")
MadeT = TypeVar("MadeT")
Rest = ParamSpec("Rest")


@dataclass(frozen=True)
class Entry:
    """One row or object.

    Attributes:
        place: File and line of the entry.
        values: Values by column or key.
    """

    place: Place
    values: dict[str, Any]


def rejecting(
    make: Callable[Concatenate[CorpusFolder, Place, Rest], MadeT],
) -> Callable[Concatenate[CorpusFolder, Place, Rest], MadeT | Reject]:
    """A function of a corpus and the place of an entry; what it raises rejects the entry.

    Args:
        make: Makes something of an entry; may raise `ManifestError`.
    """

    @wraps(make)
    def made(
        folder: CorpusFolder, place: Place, /, *rest: Rest.args, **named: Rest.kwargs
    ) -> MadeT | Reject:
        """What the function gives, or the reject of the entry."""
        try:
            return make(folder, place, *rest, **named)
        except ManifestError as error:
            return folder.reject(
                error.reason, error.detail, place.manifest, line=place.line, field=error.field
            )

    return made


def table_entries(
    folder: CorpusFolder,
    name: str,
    required: Sequence[str] = (),
    *,
    delimiter: str = ",",
    is_quoted: bool = True,
    encoding: str | None = None,
    check: Callable[[list[str]], None] | None = None,
) -> Iterator[Entry | Reject]:
    """Rows of a table with a header; the file is claimed.

    Args:
        folder: The corpus.
        name: The table.
        required: Columns that the header must have.
        delimiter: Character between cells.
        is_quoted: Whether double quotes enclose cells.
        encoding: Encoding of the file where it is not UTF-8, as its publisher says; bytes that are
            UTF-8 are read as that.
        check: Further check of the header, raising `ManifestError`.
    """
    folder.claim(name)
    columns: list[str] | None = None
    try:
        for line in _table_lines(folder, name, delimiter, is_quoted, encoding):
            if isinstance(line, BadLine):
                yield folder.reject_line(line, name)
            elif columns is None:
                columns = [cell.strip() for cell in line.cells]
                if check is not None:
                    check(columns)
                _require(columns, required)
            elif len(line.cells) != len(columns):
                yield folder.reject(
                    Reason.MALFORMED,
                    f"{len(line.cells)} cells where the header has {len(columns)}",
                    name,
                    line=line.number,
                )
            else:
                values = dict(zip(columns, line.cells, strict=True))
                yield Entry(Place(name, line.number), values)
    except ManifestError as error:
        yield folder.reject_manifest(error, name)


def cell_lines(folder: CorpusFolder, name: str, delimiter: str) -> Iterator[Line | Reject]:
    """Lines of a table without quotes, divided into cells; the file is claimed."""
    folder.claim(name)
    try:
        for line in _unquoted(folder.lines(name), delimiter):
            yield folder.reject_line(line, name) if isinstance(line, BadLine) else line
    except ManifestError as error:
        yield folder.reject_manifest(error, name)


def json_line_entries(folder: CorpusFolder, name: str) -> Iterator[Entry | Reject]:
    """Objects of a file of JSON lines; the file is claimed."""
    return parsed_lines(folder, name, _json_line)


def parsed_lines(
    folder: CorpusFolder, name: str, parse: Callable[[CorpusFolder, Place, Line], T | Reject]
) -> Iterator[T | Reject]:
    """The result of `parse` for every line that is not blank; the file is claimed."""
    folder.claim(name)
    try:
        for line in folder.lines(name):
            if isinstance(line, BadLine):
                yield folder.reject_line(line, name)
            elif line.text.strip():
                yield parse(folder, Place(name, line.number), line)
    except ManifestError as error:
        yield folder.reject_manifest(error, name)


def json_objects(
    folder: CorpusFolder, name: str, key: str | None = None
) -> Iterator[tuple[str, JsonObject] | Reject]:
    """Objects in a JSON file by their key, or index in a list; the file is claimed.

    A value that is no object is rejected, and so is the second value of a key.

    Args:
        folder: The corpus.
        name: The file.
        key: Key of the file's object that holds them; None is the object itself.
    """
    folder.claim(name)
    try:
        found = read_json(folder.read_bytes(name))
        if key is not None:
            found = found.get(key) if isinstance(found, JsonObject) else None
        if not isinstance(found, JsonObject | list):
            raise ManifestError(Reason.MALFORMED, "no list or object of recordings", field=key)
    except ManifestError as error:
        yield folder.reject_manifest(error, name)
        return
    for repeated in found.repeated if isinstance(found, JsonObject) else ():
        yield folder.reject(
            Reason.CONFLICT, "listed twice; the first entry is kept", name, field=repeated
        )
    items = found.items() if isinstance(found, JsonObject) else enumerate(found)
    for index, item in items:
        if isinstance(item, JsonObject):
            yield str(index), item
        else:
            yield folder.reject(
                Reason.MALFORMED,
                f"a {type(item).__name__} where an object belongs",
                name,
                field=str(index),
            )


def read_text(folder: CorpusFolder, name: str) -> str | Reject:
    """The text of a small UTF-8 file, or a reject; the file is claimed."""
    folder.claim(name)
    try:
        return folder.read_bytes(name).decode("utf-8-sig")
    except ManifestError as error:
        return folder.reject_manifest(error, name)
    except UnicodeDecodeError as error:
        return folder.reject(Reason.ENCODING, f"not UTF-8 at byte {error.start}", name)


def absent_part(folder: CorpusFolder, name: str, num_rows: int, part: str) -> Iterator[Reject]:
    """One reject for rows of a part of the corpus that was not downloaded; none for no rows."""
    if num_rows:
        yield folder.reject(
            Reason.UNCLAIMED, f"{num_rows} rows not read: no audio of {part} is there", name
        )


class CaptionGroups:
    """Captions of several rows, gathered by the audio that they describe.

    Args:
        folder: The corpus.
        modality: What it holds.
    """

    def __init__(self, folder: CorpusFolder, modality: str) -> None:
        self._folder = folder
        self._modality = modality
        self._groups: dict[str, tuple[str, Place, list[str], dict[str, Any]]] = {}

    def add(self, key: str, audio: str, place: Place, caption: str, **fields: Any) -> None:
        """Note a caption; key, place and fields of the first one count."""
        group = self._groups.setdefault(audio, (key, place, [], fields))
        if caption not in group[2]:
            group[2].append(caption)

    def clips(self) -> Iterator[ClipRow | Reject]:
        """A clip for every audio file, in the order of their first rows."""
        for audio, (key, place, captions, fields) in self._groups.items():
            yield self._folder.clip(
                key,
                audio,
                modality=self._modality,
                place=place,
                captions=tuple(captions),
                **fields,
            )


def _table_lines(
    folder: CorpusFolder, name: str, delimiter: str, is_quoted: bool, encoding: str | None
) -> Iterator[Line | BadLine]:
    lines = folder.lines(name)
    if encoding is not None:
        payload = folder.read_bytes(name)
        try:
            payload.decode()
        except UnicodeDecodeError:
            payload = payload.decode(encoding, errors="replace").encode()
        lines = read_lines(payload)
    return read_table(lines, delimiter) if is_quoted else _unquoted(lines, delimiter)


def _unquoted(lines: Iterable[Line | BadLine], delimiter: str) -> Iterator[Line | BadLine]:
    for line in lines:
        if isinstance(line, BadLine):
            yield line
        elif line.text.strip():
            yield Line(line.number, line.text, tuple(line.text.split(delimiter)))


def _require(columns: Sequence[str], required: Sequence[str]) -> None:
    missing = [name for name in required if name not in columns]
    if missing:
        raise ManifestError(
            Reason.MISSING_COLUMN,
            f"the header {list(columns[:8])} lacks {', '.join(missing)}; no row was read",
            line=1,
            field=", ".join(missing),
        )


@rejecting
def _json_line(_folder: CorpusFolder, place: Place, line: Line) -> Entry:
    return Entry(place, as_object(read_json(line.text.encode())))
