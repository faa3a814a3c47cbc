"""Distributions of the measured attributes, from all clips or an even sample of the parts."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from pipeline.data.report.histograms import Histogram, histogram
from pipeline.data.report.stages import StageFolder

_LEFT_OUT = frozenset({"duration_s"})
"""Attributes shown elsewhere on the page."""


@dataclass(frozen=True)
class Measured:
    """Attribute distributions.

    Attributes:
        histograms: One an attribute, by name.
        clips: Clips they are of.
        of_clips: Clips there are.
    """

    histograms: list[Histogram]
    clips: int
    of_clips: int


def measured_of(latents: StageFolder, clips: StageFolder | None, max_clips: int) -> Measured:
    """Read the attributes in the index of `latents/`.

    Args:
        latents: Directory whose index holds the attributes.
        clips: Directory that states the modality of every clip; None treats all as one modality.
        max_clips: Number of clips above which only every n-th part is read.
    """
    written = int(latents.card["written"])
    stride = max(1, math.ceil(written / max_clips))
    tables = {} if clips is None else dict.fromkeys(clips.units, clips.clips)
    values: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    num_clips = 0
    for name in latents.names("parts")[::stride]:
        unit = name.removeprefix("parts/latents-").removesuffix(".parquet")
        modality_of: dict[str, str] = {}
        if unit in tables:
            columns = tables[unit].read(unit, ["clip_id", "modality"]).to_pydict()
            modality_of = dict(zip(columns["clip_id"], columns["modality"], strict=True))
        for row in latents.folder.read_table(name, ["clip_id", "attributes"]).to_pylist():
            num_clips += 1
            series = modality_of.get(row["clip_id"], "clips")
            for attribute, value in json.loads(row["attributes"]).items():
                if attribute not in _LEFT_OUT:
                    values[attribute][series].append(value)
    histograms = [
        histogram(name, {series: np.array(found) for series, found in by_series.items()})
        for name, by_series in sorted(values.items())
    ]
    return Measured(histograms, num_clips, written)
