"""Hours and clips by modality, language, corpus and licence, and the lengths of the clips."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.data.report.histograms import Histogram, histogram_of_counts
from pipeline.data.report.stages import StageFolder

DIMENSIONS = ("modality", "language", "corpus", "licence")
"""Columns that hours are counted by."""
UNKNOWN = "not given"
"""Stands for an empty value."""
_EDGES_S = np.geomspace(0.1, 7200.0, 49)
"""Edges of the histogram of durations; what lies outside is counted in the outermost bins."""


@dataclass(frozen=True)
class Amount:
    """One line of a table of hours.

    Attributes:
        name: Value of the dimension.
        hours: Hours of audio.
        clips: Number of clips.
        share: Share of all hours, in [0, 1].
    """

    name: str
    hours: float
    clips: int
    share: float


@dataclass(frozen=True)
class Totals:
    """Sums over all clips.

    Attributes:
        clips: Number of clips.
        hours: Hours of their audio.
        speakers: Distinct speakers.
        sung: Clips with a sung transcript.
        tables: Amounts by dimension, the largest first.
        durations: Histogram of their lengths; None without clips.
    """

    clips: int
    hours: float
    speakers: int
    sung: int
    tables: dict[str, list[Amount]]
    durations: Histogram | None


@dataclass
class _Sums:
    groups: Counter[tuple[str, ...]] = field(default_factory=Counter)
    seconds: defaultdict[tuple[str, ...], float] = field(default_factory=lambda: defaultdict(float))
    counts: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    speakers: set[str] = field(default_factory=set)
    sung: int = 0


def totals_of(clips: StageFolder) -> Totals:
    """Read every row of `clips/`, one part in memory at a time."""
    sums = _Sums()
    columns = [*DIMENSIONS, "duration_s", "speaker", "is_singing"]
    tables = clips.clips
    for unit in clips.units:
        _add(sums, tables.read(unit, columns).to_pydict())
    whole = sum(sums.seconds.values()) / 3600
    amounts = {name: _table(sums, axis, whole) for axis, name in enumerate(DIMENSIONS)}
    num_clips = sum(sums.groups.values())
    return Totals(
        num_clips, whole, len(sums.speakers), sums.sung, amounts, _durations(sums) or None
    )


def _add(sums: _Sums, columns: Mapping[str, list[object]]) -> None:
    keys = zip(*(columns[name] for name in DIMENSIONS), strict=True)
    by_modality: defaultdict[str, list[float]] = defaultdict(list)
    for key, duration_s in zip(keys, columns["duration_s"], strict=True):
        named = tuple(str(value or UNKNOWN) for value in key)
        assert isinstance(duration_s, float), "the schema says so"
        sums.groups[named] += 1
        sums.seconds[named] += duration_s
        by_modality[named[0]].append(duration_s)
    inside = _EDGES_S[0], _EDGES_S[-1]
    for modality, values in by_modality.items():
        counts, _ = np.histogram(np.clip(values, *inside), _EDGES_S)
        sums.counts[modality] = sums.counts.get(modality, 0) + counts
    sums.speakers.update(str(value) for value in columns["speaker"] if value)
    sums.sung += sum(bool(value) for value in columns["is_singing"])


def _table(sums: _Sums, axis: int, whole: float) -> list[Amount]:
    clips: Counter[str] = Counter()
    hours: defaultdict[str, float] = defaultdict(float)
    for key, count in sums.groups.items():
        clips[key[axis]] += count
        hours[key[axis]] += sums.seconds[key] / 3600
    rows = [
        Amount(name, hours[name], count, hours[name] / whole if whole else 0.0)
        for name, count in clips.items()
    ]
    return sorted(rows, key=lambda row: (-row.hours, row.name))


def _durations(sums: _Sums) -> Histogram | None:
    if not sums.counts:
        return None
    return histogram_of_counts("duration_s", _EDGES_S, sums.counts, is_log=True)
