"""Reading of manifests: lines, tables and JSON, with the line number of every fault.

Nothing here evaluates code, guesses an encoding, or recurses into its input.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, BinaryIO

from pipeline.data.rejects import Reason

MAX_CELL_CHARACTERS = 64 * 2**20
"""Length of a cell of a table that is read."""
_PLAIN_CELL_CHARACTERS = 128 * 2**10  # longer ones are rare, and mostly a quote left open
_CHUNK_BYTES = 2**20
_MAX_OPEN_QUOTES = 8  # long cells that did not end, after which none is looked for any more
MAX_JSON_DEPTH = 64
"""Nesting of brackets that a manifest may have."""
_BRACKETS = re.compile(r"[\[\]{}]")
_JSON_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_LIST = re.compile(
    r"""\s*\[\s*(?:(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")\s*(?:,\s*(?!\])|(?=\])))*\]\s*""",
    re.DOTALL,
)
_LIST_ITEM = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)\"""", re.DOTALL)
_BOMS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


class ManifestError(Exception):
    """A manifest, an entry of it, or the audio that an entry names cannot be used.

    Args:
        reason: Code of the reject row.
        detail: What is wrong.
        line: Line of the manifest; None for all of it, or where the caller knows the line.
        field: Column or key that is wrong.
    """

    def __init__(
        self, reason: Reason, detail: str, line: int | None = None, field: str | None = None
    ) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.line = line
        self.field = field


@dataclass(frozen=True)
class Line:
    """One line or table row.

    Attributes:
        number: Line number from 1; that of the first line where a row spans several.
        text: The line, or empty for a table row.
        cells: Cells of a table row.
    """

    number: int
    text: str = ""
    cells: tuple[str, ...] = ()


@dataclass(frozen=True)
class BadLine:
    """A line that cannot be read, with the reason."""

    number: int
    reason: Reason
    detail: str


def read_lines(source: bytes | BinaryIO) -> Iterator[Line | BadLine]:
    """Lines of a UTF-8 file, with or without BOM, LF or CRLF; a stream is read as they are taken.

    Raises:
        ManifestError: If the file is empty or in another Unicode form.
    """
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    held, is_more = _head(stream)
    if not held.strip():
        raise ManifestError(Reason.EMPTY_MANIFEST, f"the manifest holds no row ({len(held)} bytes)")
    for mark, encoding in _BOMS:
        if held.startswith(mark):
            raise ManifestError(Reason.ENCODING, f"the file is {encoding}; convert it to UTF-8")
    ending = b"\n" if b"\n" in held else b"\r"
    held = held.removeprefix(codecs.BOM_UTF8)
    number = 0
    while True:
        *whole, rest = held.split(ending)
        for raw in whole if is_more else [*whole, rest]:
            number += 1
            yield _line(number, raw.removesuffix(b"\r"))
        if not is_more:
            return
        more = _until(stream, ending)
        held, is_more = rest + more, bool(more)


def _head(stream: BinaryIO) -> tuple[bytes, bool]:
    """The first bytes, with some text and a line feed if there are any; whether more may come."""
    held = b""
    while not (b"\n" in held and held.strip()):
        more = stream.read(_CHUNK_BYTES)
        if not more:
            return held, False
        held += more
    return held, True


def _until(stream: BinaryIO, ending: bytes) -> bytes:
    """The next bytes with at least one ending in them, or all that are left."""
    chunks = []
    while chunk := stream.read(_CHUNK_BYTES):
        chunks.append(chunk)
        if ending in chunk:
            break
    return b"".join(chunks)


def _line(number: int, raw: bytes) -> Line | BadLine:
    if b"\0" in raw:
        detail = f"NUL byte at offset {raw.index(0)} of the line"
        return BadLine(number, Reason.ENCODING, detail)
    try:
        return Line(number, raw.decode())
    except UnicodeDecodeError as error:
        return BadLine(
            number,
            Reason.ENCODING,
            f"not UTF-8: byte 0x{raw[error.start]:02x} at offset {error.start} of the line; "
            "convert the file to UTF-8",
        )


class _Window:
    """Good lines by index, taken from an iterator when they are asked for."""

    def __init__(self, lines: Iterator[Line | BadLine]) -> None:
        self._lines = lines
        self._held: deque[Line] = deque()
        self._first = 0
        self.bad: list[BadLine] = []
        """Bad lines that were met on the way, to be taken out by the reader."""

    def get(self, index: int) -> Line | None:
        """A line that was not dropped; None behind the last."""
        while index - self._first >= len(self._held):
            line = next(self._lines, None)
            if line is None:
                return None
            if isinstance(line, BadLine):
                self.bad.append(line)
            else:
                self._held.append(line)
        return self._held[index - self._first]

    def drop(self, until: int) -> None:
        """Forget the lines before an index."""
        while self._first < until and self._held:
            self._held.popleft()
            self._first += 1


def read_table(source: Iterable[Line | BadLine], delimiter: str) -> Iterator[Line | BadLine]:
    """Rows of a delimited table with double quotes; blank lines are left out.

    A quote that never closes costs its own line, not the lines that it swallows.

    Args:
        source: What `read_lines` gives.
        delimiter: Character between cells.

    Raises:
        ManifestError: If `read_lines` raises it while the lines are read.
    """
    lines = _Window(iter(source))
    index = open_quotes = 0
    limit = _PLAIN_CELL_CHARACTERS
    while (line := lines.get(index)) is not None:
        start, first = index, line
        try:
            for cells, stop in _rows(lines, index, delimiter, limit):
                if any(cell.strip() for cell in cells):
                    yield Line(first.number, cells=tuple(cells))
                start = index = stop
                lines.drop(index)
                first = lines.get(index) or first
                yield from _taken(lines.bad)
                if limit != _PLAIN_CELL_CHARACTERS:
                    break  # the long row is read
            limit = _PLAIN_CELL_CHARACTERS
        except csv.Error as error:
            is_long = limit == _PLAIN_CELL_CHARACTERS and "limit" in str(error)
            if is_long and open_quotes < _MAX_OPEN_QUOTES:
                index, limit = start, MAX_CELL_CHARACTERS
                continue
            open_quotes += limit != _PLAIN_CELL_CHARACTERS
            limit = _PLAIN_CELL_CHARACTERS
            yield BadLine(
                first.number,
                Reason.MALFORMED,
                f"not a row of a table: {error} (a quote that does not close?)",
            )
            index = start + 1
            lines.drop(index)
    yield from _taken(lines.bad)


def _taken(lines: list[BadLine]) -> Iterator[BadLine]:
    taken = lines[:]
    lines.clear()
    yield from taken


def _rows(
    lines: _Window, index: int, delimiter: str, limit: int
) -> Iterator[tuple[list[str], int]]:
    good = iter(map(lines.get, count(index)).__next__, None)
    texts = (line.text + "\n" for line in good)
    reader = csv.reader(texts, delimiter=delimiter, strict=True)
    while True:
        before = csv.field_size_limit(limit)  # of the process: set for one row at a time
        try:
            cells = next(reader, None)
        finally:
            csv.field_size_limit(before)
        if cells is None:
            return
        yield cells, index + reader.line_num


class JsonObject(dict[str, Any]):
    """A JSON object; of a repeated key the first value is kept.

    Attributes:
        repeated: Keys that are repeated.
    """

    repeated: tuple[str, ...] = ()


def read_json(payload: bytes) -> Any:
    """Strict JSON in UTF-8: no comments, limited depth; objects are `JsonObject`.

    NaN, which data frames write for a missing value, is null.

    Raises:
        ManifestError: With the line, where there is one.
    """
    if not payload.strip():
        raise ManifestError(Reason.EMPTY_MANIFEST, f"the file is empty ({len(payload)} bytes)")
    try:
        text = payload.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        line = payload[: error.start].count(b"\n") + 1
        raise ManifestError(
            Reason.ENCODING, f"not UTF-8 at byte {error.start}; convert it", line
        ) from error
    _check_depth(text)
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except json.JSONDecodeError as error:
        raise ManifestError(
            Reason.MALFORMED, f"not JSON: {error.msg} (column {error.colno})", error.lineno
        ) from error
    except ValueError as error:  # integers of thousands of digits
        raise ManifestError(Reason.MALFORMED, f"not JSON: {error}") from error


def as_object(value: Any) -> JsonObject:
    """A value of a JSON file as the object that it must be.

    Raises:
        ManifestError: If it is something else, or has a key twice.
    """
    if not isinstance(value, JsonObject):
        raise ManifestError(Reason.MALFORMED, f"a {type(value).__name__} where an object belongs")
    if value.repeated:
        raise ManifestError(
            Reason.CONFLICT, "the same key twice in one object", field=", ".join(value.repeated)
        )
    return value


def read_list(text: str) -> tuple[str, ...] | None:
    """Items of a list of quoted strings as Python or JSON writes it; None if it is not one."""
    if not _LIST.fullmatch(text):
        return None
    items = ("".join(pair) for pair in _LIST_ITEM.findall(text))
    return tuple(re.sub(r"\\(.)", r"\1", item, flags=re.DOTALL) for item in items)


def _object(pairs: list[tuple[str, Any]]) -> JsonObject:
    made = JsonObject()
    repeated = []
    for key, value in pairs:
        if key in made:
            repeated.append(key)
        else:
            made[key] = value
    made.repeated = tuple(dict.fromkeys(repeated))
    return made


def _constant(name: str) -> None:
    if name == "NaN":
        return
    raise ManifestError(Reason.MALFORMED, f"not JSON: {name} is not a number of JSON")


def _check_depth(text: str) -> None:
    depth = 0
    for match in _BRACKETS.finditer(_JSON_STRINGS.sub("", text)):
        depth += 1 if match[0] in "[{" else -1
        if depth > MAX_JSON_DEPTH:
            raise ManifestError(
                Reason.MALFORMED, f"nested more than {MAX_JSON_DEPTH} levels deep; not a manifest"
            )
