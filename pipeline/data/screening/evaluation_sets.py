"""Evaluation sets: scanned like corpora, so that nothing in them is trained on."""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.clip_tables import ClipTables
from pipeline.data.corpora.base import CorpusFacts
from pipeline.data.corpora.catalogue import SplitRule
from pipeline.data.corpora.discover import Source, discover
from pipeline.data.plan import DISCOVERY, input_digests, plan_units, scratch_folder
from pipeline.data.scan import scan_units
from pipeline.data.screening.checks import CheckSettings
from pipeline.data.screening.excerpts import PHASES, DenseWorker
from pipeline.data.screening.refusals import EvaluationSet, RefusalSettings
from pipeline.data.segments import SegmentSettings
from pipeline.data.units.stage import Resources, Unit, run_stage
from pipeline.errors import SettingsError
from pipeline.settings import Settings
from pipeline.storage import Folder

logger = logging.getLogger(__name__)

FINGERPRINT = "fingerprint"
_SPLITS = SplitRule(validation_share=0, test_share=0, min_speakers=0, is_declared_kept=True)


class EvaluationSettings(Settings):
    """An evaluation set, whose clips no model may be trained on."""

    path: str
    """Directory of clips that `ingest` wrote, or of corpora; path or URI."""
    layout: str | None = None
    """Name of the layout of a corpus; None recognises corpora in it and below."""
    name: str | None = None
    """Name in reject rows, different for each set; None takes the last part of the path."""


class _DenseSettings(Settings):
    """Settings that the dense fingerprints of evaluation sets depend on."""

    phases: int


@dataclass(frozen=True)
class EvaluationScans:
    """Scans evaluation sets beside the scan of the corpora.

    Attributes:
        entries: The sets.
        work: Directory of their scans.
        checks: Limits of their clips.
        refusals: Limit of deduplication.
        resources: Worker processes.

    Raises:
        SettingsError: If two sets have one name.
    """

    entries: Sequence[EvaluationSettings]
    work: Folder
    checks: CheckSettings
    refusals: RefusalSettings
    resources: Resources

    def __post_init__(self) -> None:
        _by_name(self.entries)

    def run(self, unit_clips: int | None) -> list[EvaluationSet]:
        """All sets with their clips and fingerprints.

        Args:
            unit_clips: Clips of one unit of work; see `plan_units`.

        Raises:
            SettingsError: If a set holds no audio.
            PlannedOnlyError: In a dry run, if there is something to do.
        """
        named = _by_name(self.entries).items()
        return [
            self._with_excerpts(self._scanned(name, entry, unit_clips)) for name, entry in named
        ]

    def _scanned(
        self, name: str, entry: EvaluationSettings, unit_clips: int | None
    ) -> EvaluationSet:
        """Clips of an evaluation set: as an earlier ingest left them, or scanned here."""
        folder = Folder.at(entry.path)
        if folder.is_complete:
            clips = ClipTables.of(folder)
            return EvaluationSet(name, clips, list(clips.digests()), folder.digest)
        facts = CorpusFacts(default_modality="sound")
        source = Source(uri=entry.path, layout=entry.layout, name=None, facts=facts)
        scan, plan = (self.work.child("evaluation", part) for part in (name, f"{name}.plan"))
        with scratch_folder(self.resources.dry_run) as scratch:
            is_dry = self.resources.dry_run
            store = scratch or plan.child(DISCOVERY)
            uses_tasks = self.resources.workers > 0 and not is_dry
            discovery = discover([source], _SPLITS, store, uses_tasks=uses_tasks)
            units = plan_units(discovery, plan, unit_clips, is_kept=not is_dry)
            if not units:
                raise SettingsError(f"the evaluation set {name!r} holds no audio: {entry.path}")
            inputs = input_digests(discovery)
            card = scan_units(scan, inputs, units, self.checks, SegmentSettings(), self.resources)
        if card["rejected"]:
            logger.warning(
                "evaluation set %s: %d of %d items cannot be compared, see %s/rejects",
                name,
                card["rejected"],
                card["read"],
                scan.uri,
            )
        return EvaluationSet(name, ClipTables(scan), [unit.name for unit in units], scan.digest)

    def _with_excerpts(self, found: EvaluationSet) -> EvaluationSet:
        """An evaluation set with the dense fingerprints by which parts of its clips are found."""
        if self.refusals.max_error_rate == 0:
            return found
        digests = found.clips.digests()
        dense = self.work.child("evaluation", f"{found.name}.dense")
        card = run_stage(
            dense,
            stage=FINGERPRINT,
            settings=_DenseSettings(phases=PHASES),
            inputs={found.name: found.digest},
            units=[Unit(name, digests[name], {"part": name}) for name in found.units],
            worker=DenseWorker,
            worker_kwargs={"clips": found.clips},
            resources=self.resources,
            max_reject_share=1.0,
        )
        if card["rejected"]:
            logger.warning(
                "evaluation set %s: excerpts of %d clips are not looked for, their audio cannot be "
                "read, see %s/rejects",
                found.name,
                card["rejected"],
                dense.uri,
            )
        return replace(found, dense=ClipTables(dense))


def _by_name(entries: Sequence[EvaluationSettings]) -> dict[str, EvaluationSettings]:
    """Evaluation sets by name, in which reject rows, scans and the card tell them apart."""
    found: dict[str, EvaluationSettings] = {}
    for entry in entries:
        name = entry.name or posixpath.basename(Folder.at(entry.path).path)
        first = found.setdefault(name, entry)
        if first is not entry:
            raise SettingsError(
                f"two evaluation sets are called {name!r}: {first.path} and {entry.path}; give "
                "each a `name` of its own"
            )
    return found
