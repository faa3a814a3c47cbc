"""Clips that are refused because of other clips: duplicates, and what evaluation sets hold."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from pipeline.data.duplicates import Rank, Recordings
from pipeline.data.fingerprints import from_bytes
from pipeline.data.rejects import Reason
from pipeline.data.scan import part_name
from pipeline.settings import Settings
from pipeline.storage import Folder, iter_rows

_COLUMNS = [
    "clip_id",
    "uri",
    "start_s",
    "end_s",
    "transcript",
    "captions",
    "tags",
    "speaker",
    "duration_s",
    "sample_rate",
    "num_channels",
    "content_sha256",
    "fingerprint",
    "acoustic",
]
_MIN_WORDS = 4
_WORDS = re.compile(r"\w+")

Refusals = dict[str, dict[str, list[str]]]
"""By unit, clip id to reason and detail."""


class RefusalSettings(Settings):
    """What makes a clip of another clip one too many."""

    keep_duplicates: bool = False
    """Whether clips that another clip repeats stay."""
    max_error_rate: float = Field(default=0.2, ge=0, le=0.3)
    """Share of bits in which the fingerprints of one recording may differ; 0 asks for equal
    samples. Other recordings differ in more than a third."""


@dataclass
class EvaluationSet:
    """The clips that must not be trained on.

    Attributes:
        name: Stands in the reject rows.
        folder: Where a scan or an ingest of them lies.
        units: Names of its units.
        digest: Digest of the folder.
    """

    name: str
    folder: Folder
    units: Sequence[str]
    digest: str


@dataclass
class _Seen:
    """Every clip, its number in `Recordings` as its place."""

    ranks: list[Rank] = field(default_factory=list)
    units: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    """Evaluation set, and id in it; empty for clips of the corpora."""
    leaks: dict[int, str] = field(default_factory=dict)
    """Why a clip of the corpora leaks by its words or its file."""


def find_refusals(
    scan: Folder,
    units: Sequence[str],
    evaluation_sets: Sequence[EvaluationSet],
    settings: RefusalSettings,
) -> Refusals:
    """Clips to refuse: of several of one recording all but the best, and all that leak.

    The best has a transcript, more captions and tags, a higher rate, more channels, the smaller
    id, in this order: it does not depend on the order of work. A clip leaks if an evaluation set
    holds its recording, another part of the same file that overlaps, or the same words by the same
    speaker; and with it every other clip of its recording.

    Args:
        scan: Where the scan of the corpora lies.
        units: Names of its units.
        evaluation_sets: Scans of what must not be trained on.
        settings: How alike is the same.
    """
    recordings = Recordings(settings.max_error_rate)
    seen = _Seen()
    held = _Held()
    for evaluation in evaluation_sets:
        for _, row in _rows(evaluation.folder, evaluation.units):
            label = f"{evaluation.name}: {row['clip_id']}"
            held.add(row, label)
            _take(recordings, seen, row, "", label)
    refusals: Refusals = defaultdict(dict)
    for unit, row in _rows(scan, units):
        number = _take(recordings, seen, row, unit, "")
        why = held.why(row)
        if why:
            seen.leaks[number] = why
            refusals[unit][row["clip_id"]] = [Reason.EVALUATION_LEAK, why]
    for group in recordings.groups():
        for unit, clip_id, reason, detail in _refused(group, seen, settings):
            refusals[unit].setdefault(clip_id, [reason, detail])
    return dict(refusals)


def _rows(folder: Folder, units: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for unit in units:
        for row in iter_rows(folder.read_table(part_name(unit), _COLUMNS)):
            yield unit, row


def _take(
    recordings: Recordings, seen: _Seen, row: Mapping[str, Any], unit: str, label: str
) -> int:
    rank = Rank(
        not row["transcript"],
        -len(row["captions"]) - len(row["tags"]),
        -row["sample_rate"],
        -row["num_channels"],
        row["clip_id"],
    )
    number = recordings.add(row["fingerprint"], row["duration_s"], from_bytes(row["acoustic"]))
    assert number == len(seen.ranks), "numbers count up"
    seen.ranks.append(rank)
    seen.units.append(unit)
    seen.labels.append(label)
    return number


def _refused(
    group: Sequence[int], seen: _Seen, settings: RefusalSettings
) -> Iterator[tuple[str, str, Reason, str]]:
    ours = [number for number in group if not seen.labels[number]]
    leak = _leak(group, seen)
    best = min(ours, key=lambda number: seen.ranks[number], default=-1)
    for number in ours:
        clip_id = seen.ranks[number].clip_id
        if leak:
            yield seen.units[number], clip_id, Reason.EVALUATION_LEAK, leak
        elif number != best and not settings.keep_duplicates:
            yield (
                seen.units[number],
                clip_id,
                Reason.DUPLICATE_AUDIO,
                f"the same recording as {seen.ranks[best].clip_id}, which is kept",
            )


def _leak(group: Sequence[int], seen: _Seen) -> str:
    """Why all clips of one recording leak; empty if they do not."""
    labels = sorted(seen.labels[number] for number in group if seen.labels[number])
    if labels:
        return f"the recording is in the evaluation set {labels[0]}"
    leaks = sorted((seen.ranks[n].clip_id, seen.leaks[n]) for n in group if n in seen.leaks)
    return f"the same recording as {leaks[0][0]}, which leaks: {leaks[0][1]}" if leaks else ""


class _Held:
    """What evaluation sets hold, besides the sound of it."""

    def __init__(self) -> None:
        self._words: dict[tuple[str, str], str] = {}
        self._spans: dict[str, list[tuple[float, float, str]]] = {}

    def add(self, row: Mapping[str, Any], label: str) -> None:
        """Take a clip of an evaluation set."""
        key = _spoken(row)
        if key:
            self._words[key] = label
        self._spans.setdefault(row["content_sha256"], []).append((*_span(row), label))

    def why(self, row: Mapping[str, Any]) -> str:
        """Why a clip leaks; empty if it does not by words or file."""
        key = _spoken(row)
        if key and key in self._words:
            return (
                f"the same words by the same speaker are in the evaluation set {self._words[key]}"
            )
        start_s, end_s = _span(row)
        for first_s, last_s, label in self._spans.get(row["content_sha256"], ()):
            if start_s < last_s and first_s < end_s:
                return f"a part of the same file is in the evaluation set {label}"
        return ""


def _spoken(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """Speaker without the corpus, and words without case and punctuation; None if too few."""
    words = _WORDS.findall(unicodedata.normalize("NFKC", row["transcript"] or "").lower())
    if not row["speaker"] or len(words) < _MIN_WORDS:
        return None
    return row["speaker"].rpartition("/")[2], " ".join(words)


def _span(row: Mapping[str, Any]) -> tuple[float, float]:
    start_s = row["start_s"] or 0.0
    return start_s, start_s + row["duration_s"]
