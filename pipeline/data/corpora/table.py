"""Tables with a header row: a user's own, and the base of published layouts that are tables."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from pipeline.data.corpora.base import CorpusFolder, Place
from pipeline.data.corpora.entries import rejecting, table_entries
from pipeline.data.corpora.fields import roles_of
from pipeline.data.corpora.file_names import suffix_of
from pipeline.data.corpora.manifests import BadLine, Line, ManifestError, read_lines
from pipeline.data.corpora.records import RecordReader, is_manifest_header
from pipeline.data.rejects import Reason
from pipeline.data.schema import ClipRow, Reject

TABLE_FOLDERS = ("", "meta", "metadata")
"""Directories of the tables, relative to the corpus."""
_DELIMITERS = ",;\t|"


class Table:
    """CSV or TSV with a header, an audio column and at least one label; see `fields.ROLES`.

    Subclasses narrow the header and say what more is known.
    """

    layout: str = "table"
    modality: ClassVar[str | None] = None
    has_spans: ClassVar[bool] = True
    required: ClassVar[tuple[str, ...]] = ()

    def is_header(self, columns: Sequence[str]) -> bool:
        """Whether a header row is one of this layout."""
        return is_manifest_header(columns)

    def known(self, record: Mapping[str, str]) -> dict[str, Any]:
        """Fields of the clip that this layout knows better than the general reading.

        Raises:
            ManifestError: If the record is wrong in a way only this layout can tell.
        """
        return {}

    def matches(self, folder: CorpusFolder) -> bool:
        """Whether a table with such a header lies in the folder, and audio below it."""
        return bool(folder.audio) and any(
            self.is_header(header_of(folder, name)[0]) for name in tables_of(folder)
        )

    def read(self, folder: CorpusFolder) -> Iterator[ClipRow | Reject]:
        """Every row of every table in the folder."""
        reader = RecordReader(folder, modality=self.modality, has_spans=self.has_spans)
        for name in tables_of(folder):
            delimiter = header_of(folder, name)[1]
            row = rejecting(self._row)
            for entry in table_entries(
                folder, name, self.required, delimiter=delimiter, check=_check_header
            ):
                if isinstance(entry, Reject):
                    yield entry
                else:
                    yield row(folder, entry.place, reader, entry.values)

    def _row(
        self, folder: CorpusFolder, place: Place, reader: RecordReader, record: dict[str, str]
    ) -> ClipRow | Reject:
        near = posixpath.dirname(place.manifest)
        try:
            known = self.known(record)
        except ManifestError:
            columns = roles_of(record).get("audio", [])
            folder.claim_if_there([record[column] for column in columns], near)
            raise
        return reader.read(record, place, near=near, **known)


def tables_of(folder: CorpusFolder) -> list[str]:
    """Names of the delimited files of a corpus."""
    return [name for place in TABLE_FOLDERS for name in folder.having(".csv", ".tsv", within=place)]


def header_of(folder: CorpusFolder, name: str) -> tuple[list[str], str]:
    """Cells of a table's first row, and the delimiter that makes most known columns of it."""
    try:
        line = next((line for line in read_lines(folder.head(name)) if _has_text(line)), None)
    except ManifestError:
        line = None
    if not isinstance(line, Line):
        return [], ","
    splits = [(_split(line.text, mark), mark) for mark in _DELIMITERS]
    best = max(splits, key=lambda pair: (sum(map(len, roles_of(pair[0]).values())), len(pair[0])))
    return best[0], "\t" if suffix_of(name) == ".tsv" else best[1]


def _check_header(columns: list[str]) -> None:
    if "audio" not in roles_of(columns):
        raise ManifestError(
            Reason.MISSING_COLUMN,
            f"the first row {columns[:6]} names no audio column; a header row is needed",
            line=1,
        )


def _has_text(line: Line | BadLine) -> bool:
    return isinstance(line, BadLine) or bool(line.text.strip())


def _split(text: str, mark: str) -> list[str]:
    return [cell.strip().strip('"') for cell in text.split(mark)]
