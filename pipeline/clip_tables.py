"""The rows of a `clips/` directory: those that the scan wrote, without the clips removed later.

Deduplication and decontamination compare all clips, so they come after the scan. They copy no
rows: for every part of the scan they write a deletion vector, a small table of the clips that are
removed from it, which is applied when the part is read.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import IncompleteError
from pipeline.storage import Folder, sha256

INGEST = "ingest"
"""Stage that writes `clips/`."""
ROWS = "rows"
"""Key of the card of `clips/` with the folder of the scan below it, and the digest of the scan."""
_PARTS = "parts/part-"
_SUFFIX = ".parquet"


def part_name(unit: str) -> str:
    """File of the rows of a unit's clips."""
    return f"{_PARTS}{unit}{_SUFFIX}"


def removed_name(unit: str) -> str:
    """File of the clips that are removed from a unit; written for every unit, be it empty."""
    return f"removed/part-{unit}{_SUFFIX}"


@dataclass(frozen=True)
class ClipTables:
    """Reads the clips of a directory unit by unit; picklable.

    Attributes:
        rows: Directory of the parts.
        removals: Directory of the deletion vectors; None where nothing is removed.
    """

    rows: Folder
    removals: Folder | None = None

    @classmethod
    def of(cls, clips: Folder) -> ClipTables:
        """Open a complete `clips/`; one of an earlier version holds the kept rows itself.

        Raises:
            IncompleteError: If it is not complete, of another stage, or its scan has changed since.
        """
        entry: dict[str, str] | None = clips.card(INGEST).get(ROWS)
        if entry is None:
            return cls(clips)
        rows = clips.child(entry["folder"])
        if not rows.is_complete or rows.digest != entry["sha256"]:
            raise IncompleteError(
                f"{rows.uri} is not the scan that {clips.uri} was made of: it is missing, or an "
                f"ingest of other clips or settings did not end; run `audiocalm {INGEST}` again"
            )
        return cls(rows, clips)

    def digests(self) -> dict[str, str]:
        """Digest of the clips of every unit by its name, in the order of the names."""
        parts = self.rows.file_digests(_PARTS, _SUFFIX)
        digests = {name.removeprefix(_PARTS).removesuffix(_SUFFIX): d for name, d in parts.items()}
        if self.removals is None:
            return digests
        removed = self.removals.file_digests("removed/", _SUFFIX)
        return {u: sha256(f"{d} {removed[removed_name(u)]}".encode()) for u, d in digests.items()}

    def read(self, unit: str, columns: list[str] | None = None) -> pa.Table:
        """Rows of the clips of a unit that are not removed, in the order of the scan."""
        if self.removals is None:
            return self.rows.read_table(part_name(unit), columns)
        gone = self.removals.read_table(removed_name(unit), ["clip_id"])["clip_id"]
        wanted = None if columns is None else list(dict.fromkeys([*columns, "clip_id"]))
        table = self.rows.read_table(part_name(unit), wanted if len(gone) else columns)
        if not len(gone):
            return table
        kept = table.filter(pc.invert(pc.is_in(table["clip_id"], gone.combine_chunks())))
        return kept if columns is None else kept.select(columns)

    def read_all(self, columns: list[str] | None = None) -> pa.Table:
        """Rows of all clips as one table.

        Raises:
            IncompleteError: If there are no units.
        """
        units = self.digests()
        if not units:
            raise IncompleteError(f"{self.rows.uri} holds no Parquet files")
        return pa.concat_tables([self.read(unit, columns) for unit in units])
