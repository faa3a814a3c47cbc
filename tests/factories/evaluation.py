"""Clips of an evaluation without data, and what metrics observe on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.evaluation.findings import FORMS, Evidence, Findings, Measure, Observed
from pipeline.evaluation.held_out import HeldOutClip
from pipeline.evaluation.listening import Listening
from pipeline.evaluation.metric import Metric


def held_out_clip(clip_id: str = "a", **changes: Any) -> HeldOutClip:
    """A held-out clip of a second of English speech, with changes."""
    values: dict[str, Any] = {
        "clip_id": clip_id, "uri": "", "start_s": None, "end_s": None, "duration_s": 1.0,
        "modality": "speech", "language": "en", "split": "test", "description": "a voice",
        "transcript": "hello",
    }  # fmt: skip
    return HeldOutClip(**(values | changes))


def observed(metric: Metric, item: Listening, forms: Sequence[str] = FORMS) -> Observed:
    """One clip as a worker observes it."""
    seen = {}
    if metric.applies_to(item.clip):
        seen = {metric.name: {form: metric.observe(item, form) for form in forms}}
    failure = "failed" if item.generated is None else None
    return Observed(item.clip, seen, generate_s=1.0, failure=failure)


def findings_of(metric: Metric, items: Sequence[Listening], **others: Any) -> Findings:
    """Figures of one metric over clips."""
    return metric.summarise(Evidence([observed(metric, item) for item in items], **others))


def figures(found: Findings) -> dict[str, dict[str, float | None]]:
    """Value of each form, by the name of the figure."""
    return {
        measure.name: {
            form: measure.figures(0)[form]["value"]
            for form in measure.forms
        }
        for measure in found.measures
    }  # fmt: skip


def measure_of(name: str, values: dict[str, tuple[float, float]], better: str = "lower") -> Measure:
    """A figure of generated speech."""
    return Measure("speech", name, better, {"generated": values})
