"""Corpora -> `clips/`: read the layouts, decode every clip, check it, keep it or say why not.

Two stages. The scan decodes and checks, unit by unit, into `scan/` below the output; it is what
costs time, and what a later run finds done. The second pass knows all clips at once and says which
of them repeat another one or are in an evaluation set. It copies no rows: these clips are removed
when the rows are read; see `pipeline/clip_tables.py`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import AfterValidator, Field

from pipeline.clip_tables import INGEST, ROWS, part_name, removed_name
from pipeline.data.corpora.base import CorpusFacts
from pipeline.data.corpora.catalogue import SplitRule
from pipeline.data.corpora.discover import Source, discover
from pipeline.data.corpora.fields import language_tag
from pipeline.data.corpora.found import Discovery
from pipeline.data.plan import DISCOVERY, input_digests, plan_units, rows_of, scratch_folder
from pipeline.data.rejects import Reason, reject_clip
from pipeline.data.scan import SCAN, SEGMENTED, ScanWorker, scan_units, totals_of
from pipeline.data.schema import REMOVED, Reject
from pipeline.data.screening.checks import CheckSettings
from pipeline.data.screening.evaluation_sets import EvaluationScans, EvaluationSettings
from pipeline.data.screening.refusals import RefusalSettings, Removal, Removals, find_removals
from pipeline.data.segments import SegmentSettings
from pipeline.data.units.commit_log import CommitLog
from pipeline.data.units.lease import check_free
from pipeline.data.units.preview import Preview
from pipeline.data.units.stage import Resources, Unit, UnitOutput, claim, run_stage
from pipeline.errors import PlannedOnlyError, SettingsError
from pipeline.settings import Settings, digest_of
from pipeline.storage import Folder, iter_rows, table_bytes

logger = logging.getLogger(__name__)

WORK_SUFFIX = ".work"
"""Suffix of the folder beside the output that holds the plan and the scans of evaluation sets."""
DRIVER_UNITS = 1024
"""Units up to which the second pass works in the calling process; more are for the workers."""
_TOTALED = ["clip_id", "corpus", "uri", "modality", "language", "duration_s", "split", "notes"]
_SAMPLE_CLIPS = _SAMPLE_UNITS = 8

Modality = Literal["speech", "sound", "music"]


def _checked_language(text: str) -> str:
    tag = language_tag(text.strip())
    if tag is None:
        raise ValueError("not a BCP 47 tag such as en, pt-br or zh-hant; give a code, not a name")
    return tag


Language = Annotated[str, AfterValidator(_checked_language)]
"""A BCP 47 tag, kept in lower case and with hyphens, as rows have it."""


class CorpusSettings(Settings):
    """A directory, and facts about the corpora in it that its owner states."""

    path: str
    """Directory, path or URI."""
    layout: str | None = None
    """Name of its layout; None recognises corpora in it and below."""
    name: str | None = None
    """Name of the corpus, the prefix of its clip ids; None takes the path below the input."""
    modality: Modality | None = None
    """Modality of every clip, whatever the corpus says."""
    language: Language | None = None
    """BCP 47 tag of every clip, whatever the corpus says."""
    licence: str | None = None
    """SPDX id of every clip, whatever the corpus says."""
    attribution: str | None = None
    """Attribution of every clip, whatever the corpus says."""


class IngestSettings(Settings):
    """Settings of `ingest`: corpora, defaults for missing facts, and limits."""

    inputs: tuple[str, ...] = ()
    """Directories in which corpora are found by their layouts."""
    corpora: tuple[CorpusSettings, ...] = ()
    """Directories with settings of their own."""
    modality: Modality | None = None
    """Modality of clips whose layout and folder name do not state it; None rejects such clips."""
    language: Language | None = None
    """BCP 47 tag of speech whose corpus does not state its language."""
    licence: str | None = None
    """Licence of clips whose corpus does not state it."""
    unit_clips: int | None = Field(default=None, ge=1)
    """Clips of one unit of work; None takes 64, and more, up to 2,048, for more than 65,536 clips:
    what the driver holds depends on the number of units."""
    unit_bytes: int = Field(default=2**30, ge=1)
    """Files of one unit of work, bytes: long recordings make units of fewer clips."""
    checks: CheckSettings = CheckSettings()
    """Limits of length, level and agreement."""
    segments: SegmentSettings = SegmentSettings()
    """Cutting of long recordings."""
    refusals: RefusalSettings = RefusalSettings()
    """Deduplication, and the lists of clips that must not be trained on."""
    evaluation_sets: tuple[EvaluationSettings, ...] = ()
    """Sets that no model may be trained on: their clips are rejected as `evaluation_leak`."""
    validation_share: float = Field(default=0.05, ge=0, lt=1)
    """Share of clips (speech: of speakers) for validation."""
    test_share: float = Field(default=0.05, ge=0, lt=1)
    """Share of clips (speech: of speakers) for test."""
    min_speakers: int = Field(default=20, ge=0)
    """Number of speakers below which a corpus is split by clip or file instead of by speaker."""
    keep_declared_splits: bool = True
    """Whether a split that the corpus declares takes precedence over the hash."""
    max_reject_share: float = Field(default=0.5, ge=0, le=1)
    """Share of rejected items above which the job fails."""
    resources: Resources = Resources(workers=2)
    """Worker processes; 0 works inside the calling one."""


class _FinalSettings(Settings):
    """Settings that `clips/` depends on, besides the rows themselves."""

    checks: CheckSettings
    segments: SegmentSettings
    refusals: RefusalSettings


def ingest(settings: IngestSettings, output: Folder) -> dict[str, Any]:
    """Bring `clips/` up to date with the corpora.

    Args:
        settings: Corpora and limits.
        output: The `clips/` directory; the plan goes into `<output>.work`.

    Returns:
        The card.

    Raises:
        SettingsError: If an input is missing, or two corpora or evaluation sets have one name.
        TooManyRejectsError: Above `max_reject_share`.
        PlannedOnlyError: In a dry run, if there is something to do.
    """
    work = Folder(output.filesystem, output.path + WORK_SUFFIX, output.uri + WORK_SUFFIX)
    evaluation = EvaluationScans(
        settings.evaluation_sets, work, settings.checks, settings.refusals, settings.resources
    )
    is_dry = settings.resources.dry_run
    scan = output.child(SCAN)
    if not is_dry:  # before the plan of a run that is under way is replaced
        check_free(scan)
        check_free(output)
    with scratch_folder(is_dry) as scratch:
        discovery = discover(
            _sources(settings),
            _split_rule(settings),
            scratch or work.child(DISCOVERY),
            uses_tasks=settings.resources.workers > 0 and not is_dry,
        )
        units = plan_units(
            discovery, work, settings.unit_clips, settings.unit_bytes, is_kept=not is_dry
        )
        if not units:
            raise SettingsError(f"no audio and no manifest in {', '.join(settings.inputs)}")
        inputs = input_digests(discovery)
        if not is_dry:
            claim(output, INGEST)
        try:
            scan_units(scan, inputs, units, settings.checks, settings.segments, settings.resources)
        except PlannedOnlyError as planned:
            raise PlannedOnlyError(_timed(planned.preview, settings)) from None
        evaluation_sets = evaluation.run(settings.unit_clips)
    removals = find_removals(scan, [u.name for u in units], evaluation_sets, settings.refusals)
    rows = {"folder": SCAN, "sha256": scan.digest}
    if not is_dry and output.is_complete and output.card().get(ROWS) != rows:
        output.reopen()
    return run_stage(
        output,
        stage=INGEST,
        settings=_FinalSettings(
            checks=settings.checks,
            segments=settings.segments,
            refusals=settings.refusals,
        ),
        inputs=inputs | {f"evaluation/{s.name}": s.digest for s in evaluation_sets},
        units=list(_final_units(scan, removals)),
        worker=FinalWorker,
        worker_kwargs={"scan": scan},
        resources=_final_resources(settings.resources, len(units)),
        max_reject_share=settings.max_reject_share,
        card_extra={
            "corpora": _corpora(discovery),
            "ignored_files": discovery.ignored,
            ROWS: rows,
        },
    )


def _final_resources(resources: Resources, num_units: int) -> Resources:
    """The calling process for few units, which takes less time than starting workers."""
    workers = resources.workers if num_units > DRIVER_UNITS else 0
    return resources.model_copy(update={"workers": workers, "retry_rejects": ()})


def _timed(preview: Preview, settings: IngestSettings) -> Preview:
    """A preview of the scan with a time; where no unit is done yet, of a few clips tried here."""
    if preview.left_s is not None or not preview.pending:
        return preview
    tried = preview.pending[:: -(-len(preview.pending) // _SAMPLE_UNITS)]
    clips = [clip for unit in tried for clip in rows_of(unit)["clips"]]
    if not clips:
        return preview
    num_clips = round(len(clips) / len(tried) * len(preview.pending))
    sample = clips[:: -(-len(clips) // _SAMPLE_CLIPS)]
    began = time.perf_counter()
    worker = ScanWorker(settings.checks, settings.segments)
    worker.process(Unit("sample", "", {"clips": sample, "rejects": []}))
    took_s = (time.perf_counter() - began) / len(sample)
    workers = max(1, settings.resources.workers)
    basis = f"{len(sample)} of {num_clips} clips tried, {took_s:.2g} s each, {workers} at a time"
    return replace(preview, left_s=took_s * num_clips / workers, basis=basis)


class FinalWorker:
    """Writes which clips of a scanned unit are removed because of others, and all its rejects.

    Args:
        scan: Directory of the scan.
    """

    def __init__(self, scan: Folder) -> None:
        self._scan = scan

    def process(self, unit: Unit) -> UnitOutput:
        """The deletion vector and all rejects, and the sums for the card."""
        scanned = self._scan.read_table(f"rejects/part-{unit.name}.parquet")
        rejects = [Reject(**columns) for columns in iter_rows(scanned)]
        removed = {
            clip_id: Removal(Reason(reason), *rest)
            for clip_id, (reason, *rest) in unit.payload["removed"].items()
        }
        totals = unit.payload["totals"]
        gone: list[dict[str, Any]] = []
        if removed:
            rows = list(iter_rows(self._scan.read_table(part_name(unit.name), _TOTALED)))
            gone = [row for row in rows if row["clip_id"] in removed]
            for row in gone:
                why = removed[row["clip_id"]]
                rejects.append(reject_clip(row, why.reason, why.detail))
            segmented = {key: totals[key] for key in totals if key.startswith(SEGMENTED)}
            kept = [row for row in rows if row["clip_id"] not in removed]
            totals = totals_of(kept, rejects, segmented)
        return UnitOutput(
            files={removed_name(unit.name): _removed_bytes(gone, removed)},
            read=unit.payload["read"],
            written=unit.payload["read"] - len(rejects),
            rejects=rejects,
            totals=totals,
        )


def _removed_bytes(rows: Sequence[dict[str, Any]], removed: Mapping[str, Removal]) -> bytes:
    ids = [row["clip_id"] for row in rows]
    columns = [ids, [removed[i].reason.value for i in ids], [removed[i].twin for i in ids]]
    return table_bytes(pa.table(columns, schema=REMOVED))


def _final_units(scan: Folder, removals: Removals) -> Iterator[Unit]:
    for record in CommitLog(scan):
        name, files = record["unit"], record["files"]
        removed = {
            clip_id: [removal.reason, removal.detail, removal.twin]
            for clip_id, removal in removals.get(name, {}).items()
        }
        contents = [files[part_name(name)], files[f"rejects/part-{name}.parquet"]]
        facts = {"removed": removed, "read": record["read"], "totals": record["totals"]}
        yield Unit(name, digest_of([contents, removed]), facts)


def _corpora(discovery: Discovery) -> dict[str, Any]:
    return {
        corpus.name: {
            "layout": corpus.layout,
            "uri": corpus.uri,
            "read": corpus.num_clips + corpus.num_rejects,
            **({"moved_from": corpus.moved} if corpus.moved else {}),
        }
        for corpus in discovery.corpora
    }


def _sources(settings: IngestSettings) -> list[Source]:
    if not settings.inputs and not settings.corpora:
        raise SettingsError("nothing to read; give --input DIR, or list `corpora` in the recipe")
    entries = [CorpusSettings(path=path) for path in settings.inputs] + list(settings.corpora)
    return [
        Source(
            uri=entry.path,
            layout=entry.layout,
            name=entry.name,
            facts=CorpusFacts(
                modality=entry.modality,
                language=entry.language,
                licence=entry.licence,
                attribution=entry.attribution,
                default_modality=settings.modality,
                default_language=settings.language,
                default_licence=settings.licence,
            ),
        )
        for entry in entries
    ]


def _split_rule(settings: IngestSettings) -> SplitRule:
    return SplitRule(
        validation_share=settings.validation_share,
        test_share=settings.test_share,
        min_speakers=settings.min_speakers,
        is_declared_kept=settings.keep_declared_splits,
    )
