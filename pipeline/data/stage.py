"""One data stage: a directory is made of work units, and every unit is written exactly once.

The unit is the idempotence. A unit's files are written aside and renamed, and its commit record
last, so a kill at any moment loses at most the units under way, and running again ends in the same
bytes. Units whose inputs and settings did not change are left alone; units that vanished are
removed.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from pydantic import Field

from pipeline.cluster import ray_cluster
from pipeline.data.attempts import Attempts
from pipeline.data.commits import Commits, Unit, UnitOutput, hours_key, rejects_bytes, summarise
from pipeline.data.preview import preview_stage
from pipeline.data.progress import Progress
from pipeline.data.schema import SCHEMA_VERSION
from pipeline.errors import PipelineError, PlannedOnlyError, TooManyRejectsError
from pipeline.settings import Settings, digest_of
from pipeline.storage import COMPLETE, Folder

__all__ = [
    "Resources",
    "Unit",
    "UnitOutput",
    "UnitWorker",
    "hours_key",
    "input_digest",
    "rejects_bytes",
    "run_stage",
]

logger = logging.getLogger(__name__)

OWNER = "_stage.json"
"""Written first of all: which stage owns the directory, so that no other one sweeps it."""
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
_STANDARD_ERROR = 2
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Resources(Settings):
    """What a stage may use."""

    workers: int = Field(default=2, ge=0)
    """Worker processes; 0 works inside the calling process, without Ray."""
    cpus: float = Field(default=1.0, ge=0)
    """Logical CPUs of one worker."""
    gpus: float = Field(default=0.0, ge=0)
    """GPUs of one worker; a fraction shares one."""
    memory_bytes: int | None = None
    """Memory reserved for one worker; None leaves it unaccounted."""
    max_attempts: int = Field(default=3, ge=1)
    """Deaths of a worker at one unit, without a clip to blame, before the job fails."""
    no_progress_timeout_s: float = 7200.0
    """Without any finished unit for this long the job fails."""
    hang_timeout_s: float = Field(default=1800.0, gt=0)
    """A worker process that begins no new clip and ends no unit for this long counts as hung and is
    killed, seconds; the clip is found and rejected like one that crashes the decoder."""
    dry_run: bool = False
    """Say what would be done and how long it would take; write nothing."""


class UnitWorker(Protocol):
    """Does units; built once per worker process."""

    def process(self, unit: Unit) -> UnitOutput:
        """Files and counts of a unit: the same bytes for the same unit."""


CardExtra = Callable[[list[dict[str, Any]]], dict[str, Any]] | dict[str, Any] | None
"""More keys of the card: given, or computed from all commit records, sorted by unit name."""


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
    redo: Callable[[dict[str, Any]], bool] | None = None,
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
        PipelineError: If a unit failed, or killed its worker too often; with the unit's name.
        PlannedOnlyError: In a dry run, if there is something to do.
    """
    _check_plan(units)
    is_new = _is_unclaimed(folder, stage)
    kept = settings.model_dump(mode="json", exclude=set(NOT_IN_DIGEST))
    commits = Commits(folder, digest_of({"schema": SCHEMA_VERSION, "settings": kept}))
    done, stale = commits.compare(units)
    if redo is not None:
        again = [name for name, record in done.items() if redo(record)]
        stale += again
        done = {name: record for name, record in done.items() if name not in again}
    pending = [unit for unit in units if unit.name not in done]
    if not pending and not stale and folder.is_complete and folder.card()["inputs"] == inputs:
        logger.info("%s: nothing to do, %d units are up to date", stage, len(units))
        return folder.card()
    if resources.dry_run:
        raise PlannedOnlyError(preview_stage(folder, stage, units, pending, stale))
    if is_new:
        folder.write_json(OWNER, {"stage": stage})
    folder.reopen()
    commits.forget(stale)
    commits.sweep(done)
    attempts = Attempts(folder, uuid.uuid4().hex, resources.max_attempts)
    if pending:
        logger.info("%s: %d of %d units to do", stage, len(pending), len(units))
        runner = {"commits": commits, "attempts": attempts, "stage": stage}
        if resources.workers:  # the calling process is nobody's to kill
            runner["hang_timeout_s"] = resources.hang_timeout_s
        _work(pending, runner | {"worker": worker, "worker_kwargs": worker_kwargs}, resources)
    attempts.clear()
    records = commits.read([unit.name for unit in units])
    facts = {"stage": stage, "settings": kept, "settings_digest": commits.settings_digest}
    card = facts | {"inputs": inputs, "schema_version": SCHEMA_VERSION} | summarise(records)
    _check_rejects(folder, card, max_reject_share)
    extra = card_extra(records) if callable(card_extra) else (card_extra or {})
    folder.finish(extra | card)
    counts = [card[name] for name in ("read", "written", "rejected")]
    logger.info("%s: %d read = %d written + %d rejected", stage, *counts)
    return folder.card()


def input_digest(folder: Folder) -> str:
    """Digest of a complete directory, for the `inputs` of the next stage.

    Raises:
        IncompleteError: If the directory is not complete.
    """
    folder.card()
    return folder.read_bytes(COMPLETE).decode().strip()


class UnitRunner:
    """Runs units in one process: counts the attempt, works, commits."""

    def __init__(
        self,
        commits: Commits,
        attempts: Attempts,
        stage: str,
        worker: type,
        worker_kwargs: dict[str, Any],
        hang_timeout_s: float | None = None,
    ) -> None:
        self._hang_timeout_s = hang_timeout_s
        self._commits = commits
        self._attempts = attempts
        self._stage = stage
        self._worker: UnitWorker = worker(**worker_kwargs)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Do one unit, given and answered as a small row.

        Failures a caller may handle come back in the row: an exception would lose its type on the
        way out of a worker process.
        """
        attempt = self._attempts.begin(row["name"])
        result = {
            "name": row["name"],
            "read": 0,
            "rejected": 0,
            "deadly": attempt.verdict,
            "failure": "",
        }
        if attempt.verdict:
            return result

        def guard(item: str) -> bool:
            self._watch()
            return attempt.enter(item)

        payload = json.loads(row["payload"])
        unit = Unit(row["name"], row["digest"], payload, attempt.number, guard)
        self._watch()
        try:
            output = self._worker.process(unit)
            self._commits.write(unit, self._stage, output)
        except (PipelineError, OSError, ValueError) as error:
            logger.exception("%s: unit %s failed", self._stage, unit.name)
            return result | {"failure": f"{type(error).__name__}: {error}"}
        finally:
            if self._hang_timeout_s is not None:
                faulthandler.cancel_dump_traceback_later()
        self._attempts.end(unit.name)
        return result | {"read": output.read, "rejected": len(output.rejects)}

    def _watch(self) -> None:
        """Give the process this long again; C code that hangs may hold the interpreter's lock."""
        if self._hang_timeout_s is not None:
            faulthandler.dump_traceback_later(self._hang_timeout_s, exit=True, file=_STANDARD_ERROR)


def _work(pending: Sequence[Unit], runner: dict[str, Any], resources: Resources) -> None:
    stage = runner["stage"]
    rows = [
        {"name": unit.name, "digest": unit.digest, "payload": json.dumps(unit.payload)}
        for unit in pending
    ]
    deadly = []
    with Progress(stage, len(rows)) as progress:
        for result in _results(rows, runner, resources):
            if result["failure"]:
                raise PipelineError(f"{stage}: unit {result['name']}: {result['failure']}")
            if result["deadly"]:
                deadly.append(f"{result['name']} ({result['deadly']})")
            progress.advance(result["read"], result["rejected"])
    if deadly:
        raise PipelineError(f"{stage}: units that kept killing their worker: {'; '.join(deadly)}")


def _results(
    rows: list[dict[str, Any]], runner: dict[str, Any], resources: Resources
) -> Iterator[dict[str, Any]]:
    if resources.workers == 0:
        run = UnitRunner(**runner)
        yield from (run(row) for row in rows)
        return
    import ray.data

    with ray_cluster():
        context = ray.data.DataContext.get_current().copy()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = False  # the order lives in the unit names
        context.execution_no_progress_timeout_s = resources.no_progress_timeout_s
        with ray.data.DataContext.current(context):
            done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
                UnitRunner,
                fn_constructor_kwargs=runner,
                compute=ray.data.ActorPoolStrategy(size=min(resources.workers, len(rows))),
                num_cpus=resources.cpus,
                num_gpus=resources.gpus or None,
                memory=resources.memory_bytes,
            )
            done.set_name(runner["stage"])
            with _without_chatter():
                yield from done.iter_rows()


@contextlib.contextmanager
def _without_chatter() -> Iterator[None]:
    """Ray Data's own progress lines left out for the duration."""
    chatter = logging.getLogger("ray.data")
    level = chatter.level
    chatter.setLevel(logging.WARNING)
    try:
        yield
    finally:
        chatter.setLevel(level)


def _check_plan(units: Sequence[Unit]) -> None:
    counts = Counter(unit.name for unit in units)
    bad = [name for name, count in counts.items() if count > 1 or not _NAME.fullmatch(name)]
    if bad:
        raise ValueError(f"unit names must be unique and safe as file names; not so: {bad[:5]}")


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
