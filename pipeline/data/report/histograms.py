"""Histograms of measured values, stacked by modality, as bars that a page can draw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.acoustics.musical_key import KEY_NAMES
from pipeline.page import number

NUM_BINS = 40
WIDTH, HEIGHT = 400.0, 110.0
"""Width and height of the drawing, in its own units."""
_UNITS = {
    "_dbfs": "dBFS",
    "_db": "dB",
    "_hz": "Hz",
    "_s": "s",
    "_bpm": "beats per minute",
    "_semitones": "semitones",
    "_share": "share",
    "_count": "count",
    "_syllables_per_s": "syllables per second",
}
_LABELS = {"key_number": ("key", KEY_NAMES)}
"""Attributes that count names up, with their title."""
_OUTER = 0.5
"""Percent of values beyond either end of the axis; they are counted in the outermost bins."""
_LOG_SPREAD = 20.0
"""Ratio of the ends from which a positive axis of `_LOG_UNITS` is logarithmic."""
_LOG_UNITS = ("Hz", "s")


@dataclass(frozen=True)
class Bar:
    """A rectangle of the drawing.

    Attributes:
        x: Position of the left edge.
        y: Upper edge, counted downwards.
        width: Width.
        height: Height.
        series: Modality.
        tip: Text of the tooltip.
    """

    x: float
    y: float
    width: float
    height: float
    series: str
    tip: str


@dataclass(frozen=True)
class Histogram:
    """One distribution.

    Attributes:
        name: Name in words, without unit.
        unit: Unit of the axis; may be empty.
        edges: Edges of the bins, one more than bins.
        counts: Values in each bin, by modality.
        low: The 5th percentile.
        median: The median.
        high: The 95th percentile.
        is_log: Whether the axis is logarithmic.
        labels: Names of the bins, where the values stand for names; empty otherwise.
    """

    name: str
    unit: str
    edges: NDArray[np.float64]
    counts: dict[str, NDArray[np.int64]]
    low: float
    median: float
    high: float
    is_log: bool
    labels: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """Values counted."""
        return int(sum(counts.sum() for counts in self.counts.values()))

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Position and text of five marks below the axis."""
        if self.labels:
            step = WIDTH / len(self.labels)
            shown = np.linspace(0, len(self.labels) - 1, 5).round().astype(int)
            return [((place + 0.5) * step, self.labels[place]) for place in shown]
        places = np.linspace(0, len(self.edges) - 1, 5)
        marks = [self.edges[round(place)] for place in places]
        step = WIDTH / (len(self.edges) - 1)
        return [
            (round(place) * step, number(value)) for place, value in zip(places, marks, strict=True)
        ]

    @property
    def most_frequent(self) -> str:
        """The label, or the bin, that most values fall into."""
        return self._span(int(np.argmax(sum(self.counts.values()))))

    def _span(self, place: int) -> str:
        if self.labels:
            return self.labels[place]
        low, high = number(self.edges[place]), number(self.edges[place + 1])
        return f"{low} to {high} {self.unit}".strip()

    def bars(self) -> Iterator[Bar]:
        """Stacked rectangles, left to right."""
        tallest = max(1, int(sum(self.counts.values()).max()))  # type: ignore[union-attr]
        step = WIDTH / (len(self.edges) - 1)
        for place in range(len(self.edges) - 1):
            top = HEIGHT
            for series, counts in self.counts.items():
                count = int(counts[place])
                if not count:
                    continue
                height = HEIGHT * count / tallest
                top -= height
                tip = f"{self._span(place)}: {count:,} {series}"
                yield Bar(place * step, top, step * 0.92, height, series, tip)


def histogram(name: str, values: Mapping[str, NDArray[np.float64]]) -> Histogram:
    """Distribution of an attribute.

    Args:
        name: Name of the attribute, with its unit, as in `pipeline.acoustics.attributes`.
        values: Finite values by modality; at least one.
    """
    everything = np.concatenate(list(values.values()))
    inner_low, median, inner_high = (float(v) for v in np.percentile(everything, [5, 50, 95]))
    if name in _LABELS:
        title, labels = _LABELS[name]
        edges: NDArray[np.float64] = np.linspace(-0.5, len(labels) - 0.5, len(labels) + 1)
        counts = {series: np.histogram(found, edges)[0] for series, found in sorted(values.items())}
        return Histogram(
            title, "", edges, counts, inner_low, median, inner_high, is_log=False, labels=labels
        )
    low, high = np.percentile(everything, [_OUTER, 100 - _OUTER])
    if low == high:
        low, high = low - 0.5, high + 0.5
    title, unit = words_of(name)
    is_log = bool(unit in _LOG_UNITS and low > 0 and high / low > _LOG_SPREAD)
    edges = (np.geomspace if is_log else np.linspace)(low, high, NUM_BINS + 1)
    counts = {
        series: np.histogram(np.clip(found, edges[0], edges[-1]), edges)[0]
        for series, found in sorted(values.items())
    }
    return Histogram(title, unit, edges, counts, inner_low, median, inner_high, is_log)


def histogram_of_counts(
    name: str,
    edges: NDArray[np.float64],
    counts: Mapping[str, NDArray[np.int64]],
    *,
    is_log: bool,
) -> Histogram:
    """Distribution of values that were only counted; percentiles are the middles of their bins."""
    used = np.flatnonzero(sum(counts.values()))
    kept = slice(int(used[0]), int(used[-1]) + 1)
    shown = {series: found[kept] for series, found in sorted(counts.items())}
    ends = edges[kept.start : kept.stop + 1]
    middles = np.sqrt(ends[:-1] * ends[1:]) if is_log else (ends[:-1] + ends[1:]) / 2
    running = np.cumsum(sum(shown.values()))
    places = [int(np.searchsorted(running, share * running[-1])) for share in (0.05, 0.5, 0.95)]
    low, median, high = (float(middles[place]) for place in places)
    title, unit = words_of(name)
    return Histogram(title, unit, ends, shown, low, median, high, is_log)


def words_of(name: str) -> tuple[str, str]:
    """Name of an attribute in words, and its unit."""
    for ending, unit in sorted(_UNITS.items(), key=lambda item: -len(item[0])):
        if name.endswith(ending):
            return name.removesuffix(ending).replace("_", " "), unit
    return name.replace("_", " "), ""
