"""One self-contained HTML page that plays the samples and opens from disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.page import render_page
from pipeline.storage import Folder


@dataclass(frozen=True)
class Sample:
    """One clip to listen to."""

    title: str
    """Heading of the card."""
    text: str
    """The description that it was generated from, or a caption."""
    audio: Path
    """WAV file."""
    spectrogram: Path | None = None
    """PNG file."""
    facts: dict[str, str] = field(default_factory=dict)
    """Short measurements, name to value with unit."""
    group: str = ""
    """Heading over this and the samples after it with the same group."""


@dataclass(frozen=True)
class Figure:
    """One picture with a caption."""

    title: str
    image: Path
    note: str = ""


@dataclass(frozen=True)
class Table:
    """One table; every cell is shown as text."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    note: str = ""
    remarks: Sequence[str] = ()
    """How to read single rows, one remark each."""


@dataclass(frozen=True)
class Report:
    """The page: a lead paragraph, a picture, overview, samples, figures and tables as given."""

    title: str
    lead: str
    samples: Sequence[Sample] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    overview: Sequence[Table] = ()
    """Tables before the samples."""
    glance: Figure | None = None
    """Picture before the tables."""


def write_report(report: Report, path: Path) -> None:
    """Render a report into one self-contained file.

    Raises:
        OSError: If an audio file or image of the report is missing.
    """
    page = render_page(Path(__file__).parent / "report.html.j2", report=report)
    Folder.at(path.parent).write_bytes(path.name, page)
