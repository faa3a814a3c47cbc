"""The commit log of a directory: records of finished units, in segments of many records each.

A worker commits a unit by one small object, `_commit/<unit>.json`. The driver gathers them: it
writes a segment, then the index that names the segments in force, then it removes the objects. The
index is replaced in one step, and an object wins over a segment. Whatever dies between two writes,
the log says what it said before or what it says afterwards. Segments are named by their digest; one
that the index does not name is removed by the next compaction.

What writes is called by the driver alone, which holds the lease of the directory.
"""

from __future__ import annotations

import heapq
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from operator import itemgetter
from typing import Any

from pipeline.errors import IncompleteError
from pipeline.storage import Folder, sha256

logger = logging.getLogger(__name__)

COMMITS = "_commit"
"""Folder of the records that are in no segment yet, one JSON file a unit."""
LOG = "_commit_log"
"""Folder of the segments, JSON lines, and of their index."""
INDEX = f"{LOG}/index.json"
"""Names the segments in force, from the oldest to the newest."""
SEGMENT_RECORDS, SEGMENT_BYTES = 512, 2**20
"""A segment ends at so many records or bytes, so that memory holds one whole."""
MAX_RUNS = 8
"""Runs of segments that are merged while they are read; one more, and they become one run."""
_READERS = 16
_READ_AHEAD = 256

Record = dict[str, Any]
"""What a worker committed of one unit; see `Commits.write`."""


@dataclass(frozen=True)
class _Segment:
    """A file of records in the order of their units.

    Attributes:
        file: Its name in the folder of the log.
        first: Its first unit.
        last: Its last unit.
    """

    file: str
    first: str
    last: str


@dataclass(frozen=True)
class CommitLog:
    """Iterates over the commit records of a directory in the order of unit names.

    Memory holds at most `MAX_RUNS` + 1 segments, however many units there are. A record that cannot
    be read is left out, with a warning: its unit is not done.

    Attributes:
        folder: The stage's directory.
    """

    folder: Folder

    def __iter__(self) -> Iterator[Record]:
        segments, _ = self._index()
        return _merged([self._read(self._singles()), *self._runs(segments)])

    def append(self, units: Sequence[str]) -> None:
        """Gather the single records of finished units into segments."""
        segments, _ = self._index()
        gathered: list[str] = []
        segments += self._write(_noted(self._read(sorted(units)), gathered))
        self._switch(segments, is_compact=False)
        self._remove(gathered)
        if len(_runs_of(segments)) > MAX_RUNS:
            self._sweep(self._rewrite(_merged(self._runs(segments))))

    def compact(self) -> None:
        """Bring the log into the form that follows from its records, without single records."""
        singles = self._singles()
        segments, is_compact = self._index()
        if singles or not is_compact:
            segments = self._rewrite(self)
            self._remove(singles)
        self._sweep(segments)

    def forget(self, units: Iterable[str]) -> None:
        """Remove the records of units: all of them in one step."""
        self.compact()  # while the units are in force, so that the switch of the index is all
        gone = frozenset(units)
        if gone:
            kept = (record for record in self if record["unit"] not in gone)
            self._sweep(self._rewrite(kept))

    def _singles(self) -> list[str]:
        names = self.folder.child(COMMITS).files(".json")
        return sorted(name.removesuffix(".json") for name in names)

    def _index(self) -> tuple[list[_Segment], bool]:
        """The segments in force, and whether `compact` would leave them as they are."""
        try:
            found = self.folder.read_json(INDEX)
        except FileNotFoundError:
            return [], True
        except IncompleteError as error:
            logger.warning("all gathered units are done again: %s", error)
            return [], False
        return [_Segment(**entry) for entry in found["segments"]], found["is_compact"]

    def _runs(self, segments: Sequence[_Segment]) -> list[Iterator[Record]]:
        """Records of each run, the newest run first."""
        return [self._records(run) for run in reversed(_runs_of(segments))]

    def _records(self, run: Sequence[_Segment]) -> Iterator[Record]:
        for segment in run:
            try:
                payload = self.folder.read_bytes(f"{LOG}/{segment.file}")
            except FileNotFoundError:
                payload = b""
            if _name_of(payload) != segment.file:
                logger.warning(
                    "units %s to %s are done again: %s/%s/%s is missing or damaged",
                    *(segment.first, segment.last, self.folder.uri, LOG, segment.file),
                )
                continue
            yield from map(json.loads, payload.splitlines())

    def _read(self, units: Sequence[str]) -> Iterator[Record]:
        with ThreadPoolExecutor(_READERS) as pool:
            for start in range(0, len(units), _READ_AHEAD):
                found = pool.map(self._if_readable, units[start : start + _READ_AHEAD])
                yield from (record for record in found if record is not None)

    def _if_readable(self, unit: str) -> Record | None:
        try:
            record: Record = self.folder.read_json(f"{COMMITS}/{unit}.json")
        except (IncompleteError, FileNotFoundError) as error:
            logger.warning("unit %s is done again: %s", unit, error)
            return None
        return record

    def _rewrite(self, records: Iterable[Record]) -> list[_Segment]:
        """Put these records, in their order, in place of all segments."""
        segments = list(self._write(records))
        self._switch(segments, is_compact=True)
        return segments

    def _sweep(self, segments: Sequence[_Segment]) -> None:
        """Remove files of segments that are not in force."""
        kept = {segment.file for segment in segments}
        for name in self.folder.child(LOG).files(".jsonl"):
            if name not in kept:
                self.folder.delete(f"{LOG}/{name}")

    def _write(self, records: Iterable[Record]) -> Iterator[_Segment]:
        """Write segments that no index names yet."""
        for units, payload in _segments(records):
            name = _name_of(payload)
            self.folder.write_bytes(f"{LOG}/{name}", payload)
            yield _Segment(name, units[0], units[-1])

    def _switch(self, segments: Sequence[_Segment], *, is_compact: bool) -> None:
        entries = [asdict(segment) for segment in segments]
        self.folder.write_json(INDEX, {"is_compact": is_compact, "segments": entries})

    def _remove(self, units: Iterable[str]) -> None:
        for unit in units:
            self.folder.delete(f"{COMMITS}/{unit}.json")


def _name_of(payload: bytes) -> str:
    return f"{sha256(payload)[:32]}.jsonl"


def _noted(records: Iterable[Record], units: list[str]) -> Iterator[Record]:
    """The same records; their units are added to the list as they pass."""
    for record in records:
        units.append(record["unit"])
        yield record


def _segments(records: Iterable[Record]) -> Iterator[tuple[list[str], bytes]]:
    """Units and contents of segments, which depend on the records alone."""
    units: list[str] = []
    lines = bytearray()
    for record in records:
        units.append(record["unit"])
        lines += json.dumps(record, sort_keys=True, allow_nan=False).encode() + b"\n"
        if len(units) >= SEGMENT_RECORDS or len(lines) >= SEGMENT_BYTES:
            yield units, bytes(lines)
            units, lines = [], bytearray()
    if units:
        yield units, bytes(lines)


def _runs_of(segments: Sequence[_Segment]) -> list[list[_Segment]]:
    """Segments in runs in which units ascend, so that one segment of a run is read at a time."""
    runs: list[list[_Segment]] = []
    for segment in segments:
        if runs and runs[-1][-1].last < segment.first:
            runs[-1].append(segment)
        else:
            runs.append([segment])
    return runs


def _merged(sources: Sequence[Iterator[Record]]) -> Iterator[Record]:
    """Records of sorted sources in one order; of several of a unit that of the first source."""
    last = None
    for record in heapq.merge(*sources, key=itemgetter("unit")):
        if record["unit"] != last:
            last = record["unit"]
            yield record
