"""Paired differences between two evaluations on the same clips, and the order of worst clips."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats

from pipeline.errors import IncompleteError, SettingsError
from pipeline.evaluation import intervals
from pipeline.evaluation.findings import Findings, Measure, resampled_clusters
from pipeline.storage import Folder

RESULTS = "results.json"
"""Figures of an evaluation. It is written last: a directory without it is not complete."""
CLIPS = "clips.json"
"""Values of single clips, from which other evaluations compute paired differences."""


def clip_values(findings: Findings) -> list[dict[str, Any]]:
    """The values of single clips from which figures are computed, for `clips.json`."""
    return [
        {
            "modality": measure.modality,
            "name": measure.name,
            "forms": {
                form: {clip_id: list(map(float, pair)) for clip_id, pair in values.items()}
                for form, values in measure.forms.items()
            },
        }
        for measure in findings.measures
        if isinstance(measure, Measure)
    ]


def read_other(folder: Folder) -> tuple[dict[str, Any], dict[tuple[str, str], dict[str, Any]]]:
    """Results of another evaluation, and the values of its generated clips by measure.

    Raises:
        IncompleteError: If the directory holds no complete evaluation.
    """
    for name in (RESULTS, CLIPS):
        if not folder.exists(name):
            raise IncompleteError(
                f"{folder.uri} has no {name}: give the output directory of a finished "
                "`audiocalm evaluate` of this version"
            )
    measures = folder.read_json(CLIPS)["measures"]
    values = {
        (measure["modality"], measure["name"]): measure["forms"].get("generated", {})
        for measure in measures
    }
    return folder.read_json(RESULTS), values


def compare(
    findings: Findings,
    others: Mapping[tuple[str, str], Mapping[str, Sequence[float]]],
    seed: int,
    clusters: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Paired differences of all figures of generated audio that both evaluations have.

    The p-values are adjusted for the number of figures, so that the expected share of false
    discoveries among the significant ones is at most the level.

    Args:
        findings: Figures of this evaluation.
        others: Values of the other one, as `read_other` gives them.
        seed: Seed of the resampling.
        clusters: Cluster of each clip, as in `Measure.figures`.

    Raises:
        SettingsError: If the evaluations have no clips in common.

    Source:
        Benjamini and Hochberg 1995.
    """
    rows: list[dict[str, Any]] = []
    num_shared = 0
    for measure in findings.measures:
        ours = measure.forms.get("generated") if isinstance(measure, Measure) else None
        theirs = others.get((measure.modality, measure.name))
        if not ours or not theirs:
            continue
        shared = [clip_id for clip_id in ours if clip_id in theirs]
        num_shared = max(num_shared, len(shared))
        if len(shared) < intervals.MIN_CLIPS:
            continue
        ours_there = [ours[clip_id] for clip_id in shared]
        theirs_there = [(theirs[clip_id][0], theirs[clip_id][1]) for clip_id in shared]
        rows.append({
            "modality": measure.modality,
            "name": measure.name,
            "better": measure.better,
            "ours": _ratio(ours_there),
            "theirs": _ratio(theirs_there),
            "difference": intervals.paired_difference(
                ours_there, theirs_there, seed, resampled_clusters(shared, clusters)
            ),
        })  # fmt: skip
    if not num_shared:
        raise SettingsError(
            "against: the two evaluations have no clips in common; evaluate both bundles on the "
            "same data with the same choice of clips"
        )
    if rows:
        adjusted = scipy.stats.false_discovery_control([row["difference"]["p"] for row in rows])
        for row, p in zip(rows, adjusted, strict=True):
            row["difference"]["p_adjusted"] = float(p)
    return rows


def badness(findings: Findings) -> dict[str, float]:
    """How bad the generated audio of each clip is among the others: 0 is best, 1 is worst.

    It is the mean over all figures with a better side of the clip's percentile rank in it. Figures
    of the codec alone are left out.
    """
    ranks: dict[str, list[float]] = defaultdict(list)
    for measure in findings.measures:
        values = measure.forms.get("generated") if isinstance(measure, Measure) else None
        if not values or measure.better not in ("higher", "lower"):
            continue
        sign = 1 if measure.better == "lower" else -1
        quality = [sign * pair[0] / pair[1] for pair in values.values()]
        order = scipy.stats.rankdata(quality)
        for clip_id, rank in zip(values, order, strict=True):
            ranks[clip_id].append((rank - 1) / max(1, len(order) - 1))
    return {clip_id: float(np.mean(found)) for clip_id, found in ranks.items()}


def _ratio(pairs: Sequence[tuple[float, float]]) -> float:
    return sum(a for a, _ in pairs) / sum(b for _, b in pairs)
