"""One data stage: a directory is made of work units, and every unit is written exactly once.

The unit is the idempotence. A unit's files are written aside and renamed, and its commit record
last, so a kill at any moment loses at most the units under way, and running again ends in the same
bytes. Units whose inputs and settings did not change are left alone; units that vanished are
removed.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from pipeline.data.schema import SCHEMA_VERSION
from pipeline.data.units.attempts import Attempts
from pipeline.data.units.commit_log import Record
from pipeline.data.units.commits import (
    OWNER,
    Commits,
    Comparison,
    Unit,
    UnitOutput,
    rejects_bytes,
)
from pipeline.data.units.lease import Lease
from pipeline.data.units.preview import preview_stage
from pipeline.data.units.resources import Resources
from pipeline.data.units.runner import Job, UnitWorker
from pipeline.data.units.totals import digests_of, files_of, hours_key, summarise
from pipeline.data.units.watchdog import SIGNS_PER_TIMEOUT
from pipeline.data.units.work import work
from pipeline.errors import PlannedOnlyError, TooManyRejectsError
from pipeline.settings import Settings, digest_of
from pipeline.storage import Folder

__all__ = [
    "Resources",
    "Unit",
    "UnitOutput",
    "UnitWorker",
    "claim",
    "files_of",
    "hours_key",
    "rejects_bytes",
    "run_stage",
]

logger = logging.getLogger(__name__)

NOT_IN_DIGEST = frozenset(
    {
        "resources",
        "max_reject_share",
        "max_fallback_share",
        "redo_unanswered",
        "endpoint",
        "speaker_encoder",
        "caption_endpoint",
        "local",
        "cache",
    }
)
"""Settings that say how to run, not what to write: changing them redoes nothing."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


CardExtra = Callable[[Iterable[Record]], dict[str, Any]] | dict[str, Any] | None
"""More keys of the card: given, or computed from all commit records, in the order of unit names;
they are read from storage each time they are iterated over."""


def run_stage(
    folder: Folder,
    *,
    stage: str,
    settings: Settings,
    inputs: dict[str, str],
    units: Sequence[Unit],
    worker: type,
    worker_kwargs: dict[str, Any],
    resources: Resources,
    max_reject_share: float,
    card_extra: CardExtra = None,
    redo: Callable[[Record], bool] | None = None,
) -> dict[str, Any]:
    """Bring a directory up to date with a plan of units, and complete it.

    Args:
        folder: Output directory: new, empty, or written by the same stage before.
        stage: Name of the stage.
        settings: What the output depends on; see `NOT_IN_DIGEST`.
        inputs: Digest of every input, for the card.
        units: The whole plan, not only what is left of it.
        worker: Class of `UnitWorker`; built with `worker_kwargs`.
        worker_kwargs: Picklable arguments.
        resources: Processes, CPUs, GPUs.
        max_reject_share: Above this share of rejected items the stage fails, in [0, 1].
        card_extra: More keys of the card.
        redo: Told the record of a unit that is up to date, whether to do it again nevertheless.

    Returns:
        The card.

    Raises:
        ValueError: On a directory of something else, or a plan with bad or repeated names.
        TooManyRejectsError: With the reasons and their counts; the directory stays incomplete.
        UnitsFailedError: If units failed, or killed their workers too often; with their names.
        SettingsError: If the cluster can never hold a worker.
        InUseError: If another run writes the directory.
        PlannedOnlyError: In a dry run, if there is something to do.
    """
    _check_plan(units)
    _is_unclaimed(folder, stage)
    kept = settings.model_dump(mode="json", exclude=set(NOT_IN_DIGEST))
    commits = Commits(folder, digest_of({"schema": SCHEMA_VERSION, "settings": kept}))
    plan = _Plan(commits, units, lambda record: _is_redone(record, resources, redo))
    if resources.dry_run or folder.is_complete:
        plan.compare()
        if not plan.has_work and folder.is_complete and folder.card()["inputs"] == inputs:
            logger.info("%s: nothing to do, %d units are up to date", stage, len(units))
            return folder.card()
    if resources.dry_run:
        raise PlannedOnlyError(preview_stage(folder, stage, units, plan.pending, plan.stale))
    claim(folder, stage)
    with Lease(folder, stage) as lease:
        plan.compare()
        job = Job(
            stage,
            commits,
            Attempts(folder, uuid.uuid4().hex, resources.max_attempts),
            worker,
            worker_kwargs,
        )
        plan.bring_up_to_date(job, resources, lease)
        commits.verify(units, {unit.name for unit in plan.pending})
        lease.check()
        commits.log.compact()
        facts = {"stage": stage, "settings": kept, "settings_digest": commits.settings_digest}
        card = facts | {"inputs": inputs, "schema_version": SCHEMA_VERSION}
        card |= summarise(commits.log)
        _check_rejects(folder, card, max_reject_share)
        extra = card_extra(commits.log) if callable(card_extra) else (card_extra or {})
        lease.check()
        folder.finish(extra | card, digests_of(commits.log))
    counts = [card[name] for name in ("read", "written", "rejected")]
    logger.info("%s: %d read = %d written + %d rejected", stage, *counts)
    return folder.card()


class _Plan:
    """The units of a stage against what is done."""

    def __init__(
        self, commits: Commits, units: Sequence[Unit], redo: Callable[[Record], bool]
    ) -> None:
        self._commits, self._units, self._redo = commits, units, redo
        self._found = Comparison(frozenset(), (), ())
        self.pending: list[Unit] = []

    def compare(self) -> None:
        """Find what is to be done and what is to be taken away."""
        self._found = self._commits.compare(self._units, self._redo)
        self.pending = [unit for unit in self._units if unit.name not in self._found.done]

    @property
    def stale(self) -> Sequence[str]:
        """Names of the units to be taken away."""
        return self._found.stale

    @property
    def has_work(self) -> bool:
        """Whether the directory does not follow from the plan."""
        return bool(self.pending or self.stale)

    def bring_up_to_date(self, job: Job, resources: Resources, lease: Lease) -> None:
        """Take away what is stale, and do what is pending."""
        self._commits.folder.reopen()
        self._commits.log.forget(self.stale)
        self._commits.sweep(self._found.orphans)
        if self.pending:
            count = len(self.pending)
            logger.info("%s: %d of %d units to do", job.stage, count, len(self._units))
            if resources.workers:  # the calling process is nobody's to kill
                sign_every_s = min(60.0, resources.no_progress_timeout_s / SIGNS_PER_TIMEOUT)
                job = replace(
                    job, hang_timeout_s=resources.hang_timeout_s, sign_every_s=sign_every_s
                )
            work(self.pending, job, resources, lease)
        job.attempts.clear()


def _is_redone(record: Record, resources: Resources, redo: Callable[[Record], bool] | None) -> bool:
    is_retried = any(reason in record["rejected_by_reason"] for reason in resources.retry_rejects)
    return is_retried or (redo is not None and redo(record))


def _check_plan(units: Sequence[Unit]) -> None:
    counts = Counter(unit.name for unit in units)
    bad = [name for name, count in counts.items() if count > 1 or not _NAME.fullmatch(name)]
    if bad:
        raise ValueError(f"unit names must be unique and safe as file names; not so: {bad[:5]}")


def claim(folder: Folder, stage: str) -> None:
    """Note that a stage owns a directory, which `run_stage` does before anything else is written.

    Raises:
        ValueError: On a directory of something else.
    """
    if _is_unclaimed(folder, stage):
        folder.write_json(OWNER, {"stage": stage})


def _is_unclaimed(folder: Folder, stage: str) -> bool:
    """Whether no stage owns the directory yet, and this one may."""
    if folder.exists(OWNER):
        owner = folder.read_json(OWNER)["stage"]
        if owner != stage:
            raise ValueError(
                f"{folder.uri} was written by stage {owner!r}, not {stage!r}; give another --output"
            )
        return False
    if folder.files(recursive=True):
        raise ValueError(
            f"{folder.uri} holds files that no stage wrote; give --output an empty or new directory"
        )
    return True


def _check_rejects(folder: Folder, card: dict[str, Any], max_reject_share: float) -> None:
    share = card["rejected"] / card["read"] if card["read"] else 0.0
    if share > max_reject_share:
        reasons = ", ".join(f"{name} {n}" for name, n in card["rejected_by_reason"].items())
        raise TooManyRejectsError(
            f"{card['stage']}: {card['rejected']} of {card['read']} items rejected "
            f"({share:.1%}, limit {max_reject_share:.1%}): {reasons}; the rows are in "
            f"{folder.uri}/rejects; mend the input or raise max_reject_share"
        )
