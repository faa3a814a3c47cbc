"""The stages found in a directory, complete or not, and what their records say."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pipeline.clip_tables import INGEST, ClipTables
from pipeline.data.prepare import FOLDERS
from pipeline.data.scan import SCAN
from pipeline.data.units.commit_log import CommitLog
from pipeline.data.units.commits import OWNER
from pipeline.data.units.totals import files_of, summarise
from pipeline.errors import IncompleteError
from pipeline.storage import Folder


@dataclass(frozen=True)
class StageFolder:
    """One stage's directory.

    Attributes:
        stage: Name of the stage.
        folder: Directory of the stage.
        is_complete: Whether it is finished; otherwise the facts are of the units committed so far.
        card: The card, or what the commit records add up to.
        files: Names of the committed files, sorted; those of killed workers are not among them.
    """

    stage: str
    folder: Folder
    is_complete: bool
    card: dict[str, Any]
    files: list[str] = field(repr=False)

    def names(self, prefix: str) -> list[str]:
        """Committed Parquet files of one folder."""
        return [n for n in self.files if n.startswith(f"{prefix}/") and n.endswith(".parquet")]

    @cached_property
    def units(self) -> list[str]:
        """Names of the committed units, sorted; each has a table of rejects."""
        names = self.names("rejects")
        return [n.removeprefix("rejects/part-").removesuffix(".parquet") for n in names]

    @cached_property
    def clips(self) -> ClipTables:
        """The clips of an ingest or a scan.

        Raises:
            IncompleteError: If a complete ingest has lost its scan, or the scan has changed since.
        """
        if self.is_complete and self.stage == INGEST:
            return ClipTables.of(self.folder)
        has_removals = bool(self.names("removed"))
        scan = self.folder.child(SCAN)
        return ClipTables(scan, self.folder) if has_removals else ClipTables(self.folder)

    @property
    def hours(self) -> dict[str, float]:
        """Hours written, by modality; empty where the stage does not count them."""
        found: dict[str, float] = self.card["hours"]["by_modality"]
        return found


def find_stages(source: Folder) -> dict[str, StageFolder]:
    """The stages in a directory that `prepare` wrote, or the one stage that wrote it.

    Raises:
        IncompleteError: If no stage wrote anything there.
    """
    if source.exists(OWNER):
        owner = source.read_json(OWNER)["stage"]
        found = {owner: source}
    else:
        children = {stage: source.child(name) for stage, name in FOLDERS.items()}
        found = {stage: child for stage, child in children.items() if child.exists(OWNER)}
    stages = {stage: _open(stage, folder) for stage, folder in found.items()}
    if not any(stage.card["units"] for stage in stages.values()):
        state = "holds no finished unit of any stage" if source.exists() else "does not exist"
        raise IncompleteError(
            f"{source.uri} {state}; give a directory that `audiocalm prepare` wrote (with "
            f"{', '.join(FOLDERS.values())} in it), or one of these"
        )
    return stages


def _open(stage: str, folder: Folder) -> StageFolder:
    if folder.is_complete:
        return StageFolder(stage, folder, True, folder.card(), folder.listed())
    log = CommitLog(folder)
    return StageFolder(stage, folder, False, summarise(log), files_of(log))
