"""Clips that are removed because of other clips: duplicates, and what evaluation sets hold."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from pydantic import Field

from pipeline.clip_tables import ClipTables
from pipeline.data.rejects import Reason
from pipeline.data.screening.duplicates import Rank, Recordings
from pipeline.data.screening.excerpts import ExcerptIndex
from pipeline.data.screening.fingerprints import Words, from_bytes
from pipeline.data.screening.id_lists import IdList, ListedIds
from pipeline.settings import Settings
from pipeline.storage import Folder, iter_rows

_COLUMNS = [
    "clip_id",
    "corpus",
    "start_s",
    "transcript",
    "speaker",
    "duration_s",
    "content_sha256",
    "fingerprint",
    "acoustic",
]
_RANKED = ["clip_id", "transcript", "captions", "tags", "sample_rate", "num_channels"]
_MIN_WORDS = 4
_WORDS = re.compile(r"\w+")


@dataclass(frozen=True)
class Removal:
    """Why a clip is removed.

    Attributes:
        reason: Code of the reject row.
        detail: Text of the reject row.
        twin: Clip, or clip of an evaluation set, that it repeats; None where a list names it.
    """

    reason: Reason
    detail: str
    twin: str | None = None


Removals = dict[str, dict[str, Removal]]
"""Removed clips by unit and clip id."""


class RefusalSettings(Settings):
    """Deduplication of clips, and lists of clips that must not be trained on."""

    keep_duplicates: bool = False
    """Whether duplicates of another clip are kept."""
    max_error_rate: float = Field(default=0.2, ge=0, le=0.3)
    """Share of bits in which the fingerprints of one recording may differ; 0 asks for equal
    samples. Other recordings differ in more than a third."""
    id_lists: tuple[IdList, ...] = ()
    """Lists of clips that must not be trained on: they are rejected as `evaluation_leak`."""


@dataclass
class EvaluationSet:
    """The clips that must not be trained on.

    Attributes:
        name: Name that the reject rows state.
        clips: Clips as a scan or an ingest left them.
        units: Names of their units.
        digest: Digest of their directory.
        dense: Their dense fingerprints; None compares whole clips only.
    """

    name: str
    clips: ClipTables
    units: Sequence[str]
    digest: str
    dense: ClipTables | None = None


@dataclass(frozen=True)
class _Member:
    """A clip of a recording that several clips are of.

    Attributes:
        rank: Rank among the clips of the recording.
        unit: Unit of the clip; empty for a clip of an evaluation set.
        label: Evaluation set, and id in it; empty for a clip of the corpora.
    """

    rank: Rank
    unit: str
    label: str


def find_removals(
    scan: Folder,
    units: Sequence[str],
    evaluation_sets: Sequence[EvaluationSet],
    settings: RefusalSettings,
) -> Removals:
    """Clips to remove: of several of one recording all but the best, and all that leak.

    The best has a transcript, more captions and tags, a higher rate, more channels, the smaller
    id, in this order: it does not depend on the order of work. A clip leaks if an evaluation set
    holds its recording, a part of it, another part of the same file that overlaps, or the same
    words by the same speaker, or if a list names it; and with it every other clip of its recording.

    Memory holds what the evaluation sets hold and the clips that are removed. All others are read
    part by part, and partitioned by their fingerprints on scratch disk; see `duplicates`.

    Args:
        scan: Directory of the scan of the corpora.
        units: Names of the units of the scan.
        evaluation_sets: Scans of what must not be trained on.
        settings: Settings of deduplication.
    """
    recordings = Recordings(settings.max_error_rate)
    held = _Held(evaluation_sets, settings)
    leaks: dict[int, Removal] = {}
    removals: Removals = defaultdict(dict)
    clips = ClipTables(scan)
    for number, unit, label, row in _all_rows(clips, units, evaluation_sets, _COLUMNS):
        words = from_bytes(row["acoustic"])
        added = recordings.add(row["fingerprint"], row["duration_s"], words)
        assert added == number, "numbers count up"
        if label:
            held.add(row, label)
            continue
        leak = held.find(row, words)
        if leak:
            leaks[number] = removals[unit][row["clip_id"]] = leak
    groups = list(recordings.groups())
    wanted = {number for group in groups for number in group}
    members = {
        number: _Member(_rank(row), unit, label)
        for number, unit, label, row in _all_rows(clips, units, evaluation_sets, _RANKED)
        if number in wanted
    }
    for group in groups:
        for number, removal in _removed(group, members, leaks, settings):
            member = members[number]
            removals[member.unit].setdefault(member.rank.clip_id, removal)
    return dict(removals)


def _all_rows(
    clips: ClipTables,
    units: Sequence[str],
    evaluation_sets: Sequence[EvaluationSet],
    columns: list[str],
) -> Iterator[tuple[int, str, str, dict[str, Any]]]:
    """Number, unit, label and columns of all clips, those of evaluation sets first."""
    sources = [
        (evaluation.clips, name, "", f"{evaluation.name}: ")
        for evaluation in evaluation_sets
        for name in evaluation.units
    ] + [(clips, name, name, "") for name in units]
    numbers = count()
    for tables, part, unit, label in sources:
        for row in iter_rows(tables.read(part, columns)):
            yield next(numbers), unit, label and f"{label}{row['clip_id']}", row


def _rank(row: Mapping[str, Any]) -> Rank:
    return Rank(
        not row["transcript"],
        -len(row["captions"]) - len(row["tags"]),
        -row["sample_rate"],
        -row["num_channels"],
        row["clip_id"],
    )


def _removed(
    group: Sequence[int],
    members: Mapping[int, _Member],
    leaks: Mapping[int, Removal],
    settings: RefusalSettings,
) -> Iterator[tuple[int, Removal]]:
    ours = [number for number in group if not members[number].label]
    leak = _leak(group, members, leaks)
    best = min(ours, key=lambda number: members[number].rank, default=-1)
    for number in ours:
        if leak:
            yield number, leak
        elif number != best and not settings.keep_duplicates:
            twin = members[best].rank.clip_id
            detail = f"the same recording as {twin}, which is kept"
            yield number, Removal(Reason.DUPLICATE_AUDIO, detail, twin)


def _leak(
    group: Sequence[int], members: Mapping[int, _Member], leaks: Mapping[int, Removal]
) -> Removal | None:
    """Why all clips of one recording leak; None if they do not."""
    labels = sorted(members[number].label for number in group if members[number].label)
    if labels:
        return _held_by(labels[0], "the recording is")
    found = sorted((members[n].rank.clip_id, leaks[n].detail) for n in group if n in leaks)
    if not found:
        return None
    twin, why = found[0]
    detail = f"the same recording as {twin}, which leaks: {why}"
    return Removal(Reason.EVALUATION_LEAK, detail, twin)


def _held_by(label: str, what: str) -> Removal:
    return Removal(Reason.EVALUATION_LEAK, f"{what} in the evaluation set {label}", label)


class _Held:
    """What evaluation sets and lists hold, besides whole recordings."""

    def __init__(self, evaluation_sets: Sequence[EvaluationSet], settings: RefusalSettings) -> None:
        self._ids = ListedIds(settings.id_lists)
        self._excerpts = ExcerptIndex(
            [
                (f"{evaluation.name}: {row['clip_id']}", from_bytes(row["words"]))
                for evaluation in evaluation_sets
                if evaluation.dense is not None
                for unit in evaluation.units
                for row in iter_rows(evaluation.dense.read(unit, ["clip_id", "words"]))
            ],
            settings.max_error_rate,
        )
        self._words: dict[tuple[str, str], str] = {}
        self._spans: dict[str, list[tuple[float, float, str]]] = {}

    def add(self, row: Mapping[str, Any], label: str) -> None:
        """Take a clip of an evaluation set."""
        key = _spoken(row)
        if key:
            self._words[key] = label
        self._spans.setdefault(row["content_sha256"], []).append((*_span(row), label))

    def find(self, row: Mapping[str, Any], words: Words) -> Removal | None:
        """Why a clip leaks; None if it does not by id, words, file or a part of the sound."""
        listed = self._ids.why(row["corpus"], row["clip_id"])
        if listed:
            return Removal(Reason.EVALUATION_LEAK, listed)
        key = _spoken(row)
        if key and key in self._words:
            return _held_by(self._words[key], "the same words by the same speaker are")
        start_s, end_s = _span(row)
        for first_s, last_s, label in self._spans.get(row["content_sha256"], ()):
            if start_s < last_s and first_s < end_s:
                return _held_by(label, "a part of the same file is")
        label = self._excerpts.find(words, row["duration_s"])
        return _held_by(label, "a part of the recording is") if label else None


def _spoken(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """Speaker without the corpus, and words without case and punctuation; None if too few."""
    words = _WORDS.findall(unicodedata.normalize("NFKC", row["transcript"] or "").lower())
    if not row["speaker"] or len(words) < _MIN_WORDS:
        return None
    return row["speaker"].rpartition("/")[2], " ".join(words)


def _span(row: Mapping[str, Any]) -> tuple[float, float]:
    start_s = row["start_s"] or 0.0
    return start_s, start_s + row["duration_s"]
