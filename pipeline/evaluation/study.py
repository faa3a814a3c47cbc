"""What a study shows: held-out losses of its arms, and their differences to the reference.

Two kinds of chance lie in a difference. Other clips would have given another one: resampling clips
shows that. So would another seed of the training: the spread over seeds shows that. Each has an
interval of its own, and a difference counts as shown only where both agree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats

from model.config import MODALITIES
from pipeline.evaluation import intervals
from pipeline.evaluation.comparison import RESULTS
from pipeline.evaluation.report import Report, Table, write_report
from pipeline.evaluation.tables import markdown, shown
from pipeline.page import number
from pipeline.storage import Folder

COMPUTE, EXPOSURE = "equal compute", "equal number of documents of the modality"
"""Points at which arms are compared: the end of their budgets, and the step after which they have
seen as many documents of a modality as the reference at its end."""
_MIN_SEEDS = 3
_SIGNIFICANT = 0.05
_LOSS_NOTE = (
    "Flow loss on held-out clips with the weight average, lower is better: mean over noisy frames, "
    "clips and seeds. In brackets: bootstrap interval at {level:.0%} over speakers, or over clips "
    "where no speaker is known; seeds are averaged first. Noise and flow times are the same for "
    "all. The loss compares arms; it does not say how audio sounds."
)
_DIFFERENCE_NOTE = (
    "Arm minus reference: below 0, the arm is better. The first interval is over speakers or "
    "clips, the second over seeds (t distribution, {seeds} seeds), both at {level:.0%}. p is the "
    "larger one of a paired permutation test over the former and a t-test over the latter, "
    "adjusted for all rows of both tables (Benjamini-Hochberg). Fewer than {min_seeds} seeds give "
    "no verdict. No difference found is no proof that there is none: look at the intervals."
)
_LEAD = (
    "Arms of one training at equal floating-point operations, {seeds} seeds each. At the end of "
    "its budget a model of one modality has seen more of it than a joint one; the second "
    "comparison is where both had seen equally many documents of it."
)


def study_results(
    runs: Sequence[Mapping[str, Any]],
    clips: Mapping[str, Mapping[str, str]],
    reference: str,
    seed: int = 0,
) -> dict[str, Any]:
    """Losses and differences of the runs that are measured so far.

    Args:
        runs: Measured runs, as a study yields them.
        clips: Modality and cluster of every held-out clip.
        reference: Arm that the others are compared with, on the seeds that both have.
        seed: Seed of the resampling.

    Returns:
        Plain values: `arms` with their budgets, `losses` and `differences`.
    """
    by_arm: dict[str, dict[int, Mapping[str, Any]]] = {}
    for run in runs:
        by_arm.setdefault(run["arm"], {})[run["seed"]] = run
    losses, differences = [], []
    for point in (COMPUTE, EXPOSURE):
        for arm, seeds in by_arm.items():
            for modality in MODALITIES:
                ours = [_pairs(run, point, modality, clips) for run in seeds.values()]
                if not all(ours):
                    continue
                row = {"point": point, "arm": arm, "modality": modality, "seeds": len(seeds)}
                losses.append(row | {"loss": _loss(ours, clips, seed)})
                common = sorted(seeds.keys() & by_arm.get(reference, {}).keys())
                ours = [_pairs(seeds[s], point, modality, clips) for s in common]
                theirs = [_pairs(by_arm[reference][s], point, modality, clips) for s in common]
                if arm != reference and common and all(theirs):
                    row = row | {"seeds": len(common)}
                    differences.append(row | _difference(ours, theirs, clips, seed))
    tested = [row for row in differences if row["p"] is not None]
    if tested:
        adjusted = scipy.stats.false_discovery_control([row["p"] for row in tested])
        for row, p in zip(tested, adjusted, strict=True):
            row["p_adjusted"] = float(p)
    return {
        "reference": reference,
        "arms": [_budget(arm, list(seeds.values())) for arm, seeds in by_arm.items()],
        "losses": losses,
        "differences": differences,
    }


def study_tables(results: Mapping[str, Any]) -> list[Table]:
    """The tables of a study from its results."""
    level, arms = intervals.LEVEL, results["arms"]
    seeds = max((arm["seeds"] for arm in arms), default=0)
    budgets: list[tuple[object, ...]] = [
        (arm["arm"], arm["seeds"], arm["num_parameters"], arm["steps"],
         f"{arm['flops'] / 1e12:.1f}", f"{arm['minutes']:.1f}",
         ", ".join(f"{name} {share:.0%}" for name, share in arm["shares"].items()))
        for arm in arms
    ]  # fmt: skip
    columns: tuple[str, ...]
    columns = ("arm", "seeds", "parameters", "steps", "TFLOP", "minutes", "stream")
    note = "Minutes are of the steps alone, mean over seeds; they depend on the machine's load."
    tables = [Table("Arms and their budgets", columns, budgets, note)]
    for point in (COMPUTE, EXPOSURE):
        note = _LOSS_NOTE.format(level=level)
        tables.append(_loss_table(results, point, note if point == COMPUTE else ""))
    note = _DIFFERENCE_NOTE.format(level=level, seeds=seeds, min_seeds=_MIN_SEEDS)
    for point in (COMPUTE, EXPOSURE):
        title = f"Differences to {results['reference']}, {point}"
        columns = ("arm", "modality", "clips", "seeds", "difference", "in %", "over clips",
                   "over seeds", "p", "verdict")  # fmt: skip
        rows = [_difference_row(row) for row in results["differences"] if row["point"] == point]
        tables.append(Table(title, columns, rows, note if point == COMPUTE else ""))
    return tables


def write_study(results: Mapping[str, Any], output: Path) -> None:
    """Write `study.html`, `study.md` and `results.json`, which comes last."""
    tables = study_tables(results)
    seeds = max((arm["seeds"] for arm in results["arms"]), default=0)
    lead = _LEAD.format(seeds=seeds)
    write_report(Report("AudioCALM: study", lead, tables=tables), output / "study.html")
    folder = Folder.at(output)
    folder.write_bytes("study.md", f"{lead}\n\n{markdown(tables)}\n".encode())
    folder.write_json(RESULTS, results)


Pairs = dict[str, tuple[float, float]]
"""Sum of the loss over noisy frames and their number, by clip."""


def _pairs(
    run: Mapping[str, Any], point: str, modality: str, clips: Mapping[str, Mapping[str, str]]
) -> Pairs:
    """Losses of a run in one modality; empty if it was not trained on that."""
    if modality not in run["shares"]:
        return {}
    step = run["steps"] if point == COMPUTE else run["matched_steps"].get(modality)
    found = run["losses"].get(str(step), {})
    return {
        clip: (float(pair[0]), float(pair[1]))
        for clip, pair in found.items()
        if clips[clip]["modality"] == modality
    }


def _averaged(runs: Sequence[Pairs]) -> Pairs:
    """Mean over seeds of the sums of every clip."""
    return {
        clip: (
            float(np.mean([run[clip][0] for run in runs])),
            float(np.mean([run[clip][1] for run in runs])),
        )
        for clip in runs[0]
    }


def _loss(
    runs: Sequence[Pairs], clips: Mapping[str, Mapping[str, str]], seed: int
) -> intervals.Estimate:
    mean = _averaged(runs)
    sums, counts = zip(*mean.values(), strict=True)
    return intervals.ratio(sums, counts, seed, [clips[clip]["cluster"] for clip in mean])


def _difference(
    ours: Sequence[Pairs],
    theirs: Sequence[Pairs],
    clips: Mapping[str, Mapping[str, str]],
    seed: int,
) -> dict[str, Any]:
    """Difference with its interval over clusters of clips and over seeds."""
    mine, reference = _averaged(ours), _averaged(theirs)
    shared = [clip for clip in mine if clip in reference]
    over_clips = intervals.paired_difference(
        [mine[clip] for clip in shared],
        [reference[clip] for clip in shared],
        seed,
        [clips[clip]["cluster"] for clip in shared],
    )
    by_seed = [
        _ratio(one, shared) - _ratio(other, shared) for one, other in zip(ours, theirs, strict=True)
    ]
    over_seeds = _over_seeds(by_seed)
    p = None
    if over_clips["p"] is not None and over_seeds["p"] is not None:
        p = max(over_clips["p"], over_seeds["p"])
    relative = over_clips["value"] / _ratio(reference, shared)
    return {"over_clips": over_clips, "over_seeds": over_seeds, "relative": relative, "p": p}


def _over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """Mean with the interval and p-value of a t-test; both None below three seeds."""
    mean = float(np.mean(values))
    found: dict[str, float | None] = {"low": None, "high": None, "p": None}
    if len(values) >= _MIN_SEEDS:
        test = scipy.stats.ttest_1samp(values, 0.0)
        interval = test.confidence_interval(intervals.LEVEL)
        limits = (float(interval.low), float(interval.high), float(test.pvalue))
        if all(map(math.isfinite, limits)):  # not if all seeds agree
            found = dict(zip(("low", "high", "p"), limits, strict=True))
    return {"value": mean, "n": len(values), "by_seed": list(values)} | found


def _ratio(pairs: Pairs, clips: Sequence[str]) -> float:
    return sum(pairs[clip][0] for clip in clips) / sum(pairs[clip][1] for clip in clips)


def _budget(arm: str, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = runs[0]
    facts = {name: first[name] for name in ("num_parameters", "steps", "flops", "shares")}
    minutes = float(np.mean([run["seconds"] for run in runs])) / 60
    return {"arm": arm, "seeds": len(runs), "minutes": minutes} | facts


def _loss_table(results: Mapping[str, Any], point: str, note: str) -> Table:
    cells = {
        (row["arm"], row["modality"]): f"{shown(row['loss'], 4)}; {row['loss']['n']} clips"
        for row in results["losses"]
        if row["point"] == point and intervals.is_supported(row["loss"])
    }
    arms = dict.fromkeys(arm["arm"] for arm in results["arms"])
    rows = [(arm, *(cells.get((arm, modality)) for modality in MODALITIES)) for arm in arms]
    return Table(f"Held-out flow loss, {point}", ("arm", *MODALITIES), rows, note)


def _difference_row(row: Mapping[str, Any]) -> tuple[object, ...]:
    clips, seeds, p = row["over_clips"], row["over_seeds"], row.get("p_adjusted")
    return (
        row["arm"], row["modality"], clips["n"], row["seeds"], _signed(clips["value"]),
        f"{100 * row['relative']:+.1f}", _limits(clips), _limits(seeds),
        None if p is None else f"{p:.3f}" if p >= 0.001 else "< 0.001", _verdict(row, p),
    )  # fmt: skip


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{number(value)}"


def _limits(estimate: Mapping[str, Any]) -> str | None:
    if estimate["low"] is None:
        return None
    return f"[{_signed(estimate['low'])}, {_signed(estimate['high'])}]"


def _verdict(row: Mapping[str, Any], p: float | None) -> str:
    if p is None:
        return "too few seeds or clips"
    if p >= _SIGNIFICANT:
        return "not shown to differ"
    return "better" if row["over_clips"]["value"] < 0 else "worse"
