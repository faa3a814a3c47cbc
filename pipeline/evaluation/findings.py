"""Figures of an evaluation, and the values of single clips that they are computed from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.evaluation import intervals
from pipeline.evaluation.held_out import HeldOutClip

FORMS = ("real", "reconstructed", "generated")
"""The recording, its reconstruction by the codec, and the generation from its description."""

Values = Mapping[str, tuple[float | bool, float]]
"""Numerator and denominator of each clip, by clip id. The figure is the ratio of the sums; with
`bool` numerators it is a share of clips."""


def resampled_clusters(
    clip_ids: Sequence[str], clusters: Mapping[str, str] | None
) -> list[str] | None:
    """Cluster of each clip, to be resampled; None if there are too few, or each has one clip.

    Args:
        clip_ids: The clips.
        clusters: Speaker or recording by clip id; clips without one stand by themselves.
    """
    names = [(clusters or {}).get(clip_id, clip_id) for clip_id in clip_ids]
    return names if intervals.MIN_CLUSTERS <= len(set(names)) < len(names) else None


@dataclass(frozen=True)
class Measure:
    """A figure that is a mean or a ratio over clips.

    Attributes:
        modality: Modality of the clips.
        name: Name in the report; unique within the modality.
        better: `higher` or `lower`; empty where neither is better by itself.
        forms: Values of some of `FORMS`, and of `chance` or `classifier_on_held_out`.
        note: How to read the figure.
    """

    modality: str
    name: str
    better: str
    forms: Mapping[str, Values]
    note: str = ""

    def figures(self, seed: int, clusters: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Plain values: the attributes, with an estimate in place of the values of each form.

        Args:
            seed: Seed of the resampling.
            clusters: Speaker or recording by clip id; clips without one stand by themselves. They
                are resampled if there are enough of them, and counted under `clusters`.
        """
        estimates = {}
        for form, values in self.forms.items():
            resampled = resampled_clusters(list(values), clusters)
            above, below = [pair[0] for pair in values.values()], [p[1] for p in values.values()]
            estimates[form] = intervals.ratio(above, below, seed, resampled)
            if resampled is not None:
                estimates[form]["clusters"] = len(set(resampled))
        return _described(self) | estimates


@dataclass(frozen=True)
class SetFigure:
    """A figure of a whole set of clips, such as a Fréchet distance; it has no value for a clip.

    Attributes:
        modality: Modality of the clips.
        name: Name in the report; unique within the modality.
        better: `higher` or `lower`.
        forms: Value of some of `FORMS`.
        num_clips: Number of clips in each set.
        note: How to read the figure.
    """

    modality: str
    name: str
    better: str
    forms: Mapping[str, float]
    num_clips: int
    note: str = ""

    def figures(self, seed: int, clusters: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Plain values: the attributes, with an estimate without interval for each form."""
        return _described(self) | {
            form: {"value": value, "low": None, "high": None, "n": self.num_clips}
            for form, value in self.forms.items()
        }


def _described(figure: Measure | SetFigure) -> dict[str, Any]:
    return {name: getattr(figure, name) for name in ("modality", "name", "better", "note")}


@dataclass
class Findings:
    """What was measured, and the reason for each figure that was not.

    Attributes:
        measures: Figures in the order of the report.
        skipped: Reason by the name of the figure.
        curves: Points of each form by the title of the curve: time in seconds, value, clips.
    """

    measures: list[Measure | SetFigure] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    curves: dict[str, dict[str, list[tuple[float, float, int]]]] = field(default_factory=dict)

    def add(
        self,
        modality: str,
        name: str,
        better: str,
        forms: Mapping[str, Mapping[str, float | bool]],
        note: str = "",
    ) -> None:
        """Add a mean over clips, or the share of clips that are `True`.

        Args:
            modality: Modality of the clips.
            name: Name in the report.
            better: `higher`, `lower` or empty.
            forms: One value for each clip id, for each form.
            note: How to read the figure.
        """
        values = {
            form: {clip_id: (value, 1.0) for clip_id, value in clips.items()}
            for form, clips in forms.items()
        }
        self.measures.append(Measure(modality, name, better, values, note))

    def extend(self, other: Findings) -> None:
        """Add the figures and reasons of another instance."""
        self.measures += other.measures
        self.skipped |= other.skipped
        self.curves |= other.curves


@dataclass(frozen=True)
class Observed:
    """What the metrics observed on one clip.

    Attributes:
        clip: The clip.
        observations: Observation by name of the metric, then by form.
        generate_s: Duration of the generation, seconds; 0 if nothing was generated.
        failure: Why nothing was generated; None if it was.
    """

    clip: HeldOutClip
    observations: Mapping[str, Mapping[str, Any]]
    generate_s: float = 0.0
    failure: str | None = None

    def of(self, metric: str, form: str) -> Any:
        """Observation of a metric on a form.

        Raises:
            KeyError: If the metric did not observe this form of the clip.
        """
        return self.observations[metric][form]

    def has(self, metric: str) -> bool:
        """Whether the metric observed the clip."""
        return metric in self.observations


@dataclass(frozen=True)
class Evidence:
    """Everything that was observed.

    Attributes:
        clips: The evaluated clips, in all forms.
        takes: Further generations of the evaluated clips with other seeds, by clip id.
        recordings: Real recordings that classifiers are trained and tested on, by clip id.
    """

    clips: Sequence[Observed]
    takes: Mapping[str, Sequence[Observed]] = field(default_factory=dict)
    recordings: Mapping[str, Observed] = field(default_factory=dict)

    def seen_by(self, metric: str, modality: str | None = None) -> list[Observed]:
        """Evaluated clips that a metric observed, of one modality or of all."""
        return [
            item
            for item in self.clips
            if item.has(metric) and modality in (None, item.clip.modality)
        ]
