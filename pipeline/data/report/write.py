"""Gathers the report of a prepared directory, writes the page, and logs it with the cards."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from pipeline.data.report.examples import Rejects, Texts, rejects_of, texts_of
from pipeline.data.report.listening import Listening
from pipeline.data.report.measured import Measured, measured_of
from pipeline.data.report.stages import StageFolder, find_stages
from pipeline.data.report.totals import Totals, totals_of
from pipeline.page import render_page
from pipeline.settings import Settings, digest_of
from pipeline.storage import CARD, Folder
from pipeline.tracking import TrackingSettings, closing_run, open_run

logger = logging.getLogger(__name__)

PAGE = "report.html"
_TEMPLATE = Path(__file__).parent / "report.html.j2"
_CLIP_STAGES = ("ingest", "scan")
"""Stages whose parts are rows of the `CLIPS` schema."""


class DataReportSettings(Settings):
    """Settings of `data-report`: the amount that the page shows."""

    per_modality: int = Field(default=4, ge=0)
    """Number of described clips of each modality that are shown."""
    per_reason: int = Field(default=3, ge=0)
    """Number of rejects of each reason in each stage that are shown."""
    clip_seconds: float = Field(default=6.0, gt=0)
    """Duration of the beginning of a clip that the page contains, seconds."""
    max_audio_bytes: int = Field(default=12 * 2**20, ge=0)
    """Largest size of all audio in the page, bytes before base64; later clips are left out."""
    max_measured_clips: int = Field(default=200_000, ge=1)
    """Number of clips above which histograms of attributes are made of every n-th part only."""
    tracking: TrackingSettings = TrackingSettings()
    """Tracking server that page and cards are logged to."""


@dataclass(frozen=True)
class DataReport:
    """Contents of the page; None where their stage does not exist."""

    name: str
    stages: dict[str, StageFolder]
    totals: Totals | None
    measured: Measured | None
    texts: Texts | None
    rejects: list[Rejects]
    ignored: dict[str, int]
    clip_seconds: float


def gather(source: Folder, settings: DataReportSettings) -> DataReport:
    """Read what the stages left.

    Raises:
        IncompleteError: If no stage wrote anything there.
    """
    stages = find_stages(source)
    clips = next((stages[name] for name in _CLIP_STAGES if name in stages), None)
    latents, descriptions = stages.get("encode"), stages.get("describe")
    listening = Listening(settings.clip_seconds, settings.max_audio_bytes)
    # Rejects first: they are what one wants to hear if the budget is short.
    rejects = rejects_of(stages, settings.per_reason, listening)
    texts = None
    if descriptions is not None:
        texts = texts_of(descriptions, clips, settings.per_modality, listening)
    return DataReport(
        name=source.uri.rstrip("/").rsplit("/", 1)[-1],
        stages=stages,
        totals=totals_of(clips) if clips else None,
        measured=measured_of(latents, clips, settings.max_measured_clips) if latents else None,
        rejects=rejects,
        ignored=_ignored(clips) if clips else {},
        texts=texts,
        clip_seconds=settings.clip_seconds,
    )


def _ignored(clips: StageFolder) -> dict[str, int]:
    """Files that ingest left alone, the most frequent kind first."""
    counts: dict[str, int] = clips.card.get("ignored_files", {})
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def write_data_report(
    source: Folder, settings: DataReportSettings, output: str | None = None
) -> str:
    """Write the page and log it.

    Args:
        source: Output directory of `prepare`, or the directory of one stage.
        settings: Settings of the report.
        output: HTML file to write; None is `report.html` in `source`.

    Returns:
        Where the page is.

    Raises:
        IncompleteError: If no stage wrote anything in `source`.
        ValueError: If `output` does not end in `.html`.
    """
    place = output or f"{source.uri}/{PAGE}"
    if not place.endswith(".html"):
        raise ValueError(f"the report is one HTML file; --output {place!r} does not end in .html")
    report = gather(source, settings)
    page = render_page(_TEMPLATE, report=report)
    folder, _, name = place.rpartition("/")
    Folder.at(folder or ".").write_bytes(name, page)
    _log(report, page, source, settings)
    return place


def _log(report: DataReport, page: bytes, source: Folder, settings: DataReportSettings) -> None:
    facts = {"source": source.uri, "report": settings.model_dump(mode="json")}
    identity = digest_of({"data-report": source.uri})
    reference = open_run(settings.tracking, source.uri, identity, facts, {"job": "data-report"})
    with closing_run(reference) as tracker, tempfile.TemporaryDirectory() as scratch:
        if not tracker.is_active:
            return
        tracker.log_metrics(_metrics(report), 0)
        path = Path(scratch) / PAGE
        path.write_bytes(page)
        tracker.log_file(path)
        for stage in report.stages.values():
            if stage.is_complete:
                card = Path(scratch) / CARD
                card.write_bytes(stage.folder.read_bytes(CARD))
                tracker.log_file(card, stage.stage)


def _metrics(report: DataReport) -> dict[str, float]:
    values: dict[str, float] = {}
    for name, stage in report.stages.items():
        for count in ("read", "written", "rejected"):
            values[f"{name}/{count}"] = stage.card[count]
        values |= {f"{name}/hours/{modality}": hours for modality, hours in stage.hours.items()}
    return values
