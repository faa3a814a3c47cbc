"""The tables of a report and their Markdown form, from the contents of `results.json`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.evaluation.findings import FORMS
from pipeline.evaluation.held_out import COUNTS, TRAINING, describe_counts, num_chosen
from pipeline.evaluation.intervals import LEVEL, MIN_CLIPS, is_supported
from pipeline.evaluation.report import Table
from pipeline.page import number

if TYPE_CHECKING:
    from pipeline.evaluation.evaluate import Evaluation

NOT_RUN = "not run here"
INTERVAL_NOTE = (
    f"In brackets: bootstrap interval at {LEVEL:.0%}, over clips, or over the speakers or "
    "recordings whose number stands behind that of the clips. Without brackets: a figure of the "
    "whole set, or all clips agree. Empty cells do not apply to that form."
)
COMPARISON_NOTE = (
    "Differences between the generated audio of two bundles on the same clips: ours minus theirs, "
    f"with a paired bootstrap interval at {LEVEL:.0%}. p is of a paired permutation test, adjusted "
    "for the number of rows (Benjamini-Hochberg)."
)
_RANK_NOTE = (
    "Worst first. The rank is the mean, over all figures, of the share of clips whose generated "
    "audio is better: 0 is best, 1 is worst."
)
_SIGNIFICANT = 0.05
_WORST = 10
_BEYOND_FORMS = {"classifier_on_held_out": "classifier on real held-out clips", "chance": "chance"}


def measured_on(results: dict[str, Any]) -> str:
    """Whether the clips of `results.json` are held out, or how many of them are not."""
    counts = results["clips"].values()
    in_training = sum(count[TRAINING] for count in counts)
    total = sum(num_chosen(count) for count in counts)
    if not in_training:
        return f"{total} held-out clips"
    return f"{total} clips, {in_training} of them from the training split and not held out,"


def overview_tables(results: dict[str, Any]) -> list[Table]:
    """What was measured, the comparison with another bundle, and the figures of each modality."""
    tables = [_setting(results)]
    if comparison := results.get("comparison"):
        tables.append(_comparison(comparison))
    return [*tables, *_measure_tables(results.get("measures", []))]


def result_tables(results: dict[str, Any]) -> list[Table]:
    """All tables of a report from `results.json`."""
    return [*overview_tables(results), *further_tables(results)]


def further_tables(results: dict[str, Any]) -> list[Table]:
    """Published figures, clips, speed, and what was not measured."""
    counts, limit_s = results["clips"], results["settings"]["max_duration_s"]
    tables = [
        Table(
            "Clips measured, and clips left out",
            ("modality", *(name.replace("_", " ") for name in COUNTS)),
            [(name, *(count[column] for column in COUNTS)) for name, count in counts.items()],
            ". ".join(describe_counts(name, count, limit_s) for name, count in counts.items()),
        )
    ]
    measures = results.get("measures", [])
    if published := results["settings"].get("published"):
        tables.append(_published(published, measures))
    if timing := results.get("timing"):
        tables.append(_speed(timing))
    if failed := results.get("failed"):
        tables.append(Table("Clips that were not generated", ("clip", "why"), list(failed.items())))
    if reasons := results.get("not_measured", {}) | _too_few(measures):
        tables.append(Table("Not measured", ("measure", "why"), list(reasons.items())))
    return tables


def worst_clips(evaluation: Evaluation) -> list[Table]:
    """The clips with the worst generated audio of each modality, and what was heard in it."""
    tables = []
    for modality, clips in evaluation.clips.items():
        is_heard = any(clip.clip_id in evaluation.heard for clip in clips)
        rows = [
            (clip.clip_id, f"{evaluation.badness.get(clip.clip_id, 0.0):.2f}", clip.description,
             *((clip.transcript, evaluation.heard.get(clip.clip_id, {}).get("generated"))
               if is_heard else ()))
            for clip in clips[:_WORST]
        ]  # fmt: skip
        columns = ("clip", "rank", "description", *(("words", "heard") if is_heard else ()))
        tables.append(Table(f"Worst clips of {modality}", columns, rows, _RANK_NOTE))
    return tables


def markdown_tables(results: dict[str, Any]) -> str:
    """The tables of `results.json` as Markdown, for a model card or a paper."""
    lines = [f"{measured_on(results).rstrip(',')}, seed {results['settings'].get('seed', 0)}.", ""]
    return "\n".join([*lines, markdown(result_tables(results))])


def markdown(tables: Sequence[Table]) -> str:
    """Tables as Markdown."""
    lines: list[str] = []
    for table in tables:
        lines += [f"### {table.title}", "", _markdown_row(table.columns)]
        lines += ["|" + "---|" * len(table.columns)]
        lines += [_markdown_row(row) for row in table.rows]
        lines += ["", *([table.note, ""] if table.note else [])]
        if table.remarks:
            lines += [*(f"- {remark}" for remark in table.remarks), ""]
    return "\n".join(lines).rstrip()


def shown(estimate: dict[str, Any] | None, digits: int = 3) -> str | None:
    """An estimate with its interval; None without a value, or with too few clips for one.

    Args:
        estimate: Estimate from `pipeline.evaluation.intervals`.
        digits: Significant digits.
    """
    if estimate is None or not is_supported(estimate):
        return None
    figure = number(estimate["value"], digits)
    if estimate["low"] is None:
        return figure
    low, high = (number(estimate[end], digits) for end in ("low", "high"))
    return f"{figure} [{low},\u00a0{high}]"  # a line may break before the interval, not within


def _markdown_row(cells: Sequence[object]) -> str:
    texts = (
        "-" if cell is None else number(cell) if isinstance(cell, float) else str(cell)
        for cell in cells
    )
    return f"| {' | '.join(' '.join(text.replace('|', '/').split()) for text in texts)} |"


def _setting(results: dict[str, Any]) -> Table:
    settings, weights = results["settings"], results.get("weights", {})
    sampled = {
        name: settings.get(name) if settings.get(name) is not None else "default of the bundle"
        for name in ("num_flow_steps", "guidance_scale")
    }
    rows = [
        ("bundle", f"{results.get('bundle', '')} ({results['bundle_digest'][:12]})"),
        ("weights", ", ".join(f"{name} {value}" for name, value in weights.items() if value)),
        ("clips", measured_on(results).rstrip(",")),
        ("seed", settings.get("seed", 0)),
        ("flow steps", sampled["num_flow_steps"]),
        ("guidance", sampled["guidance_scale"]),
        ("recogniser of words", results.get("recogniser") or "none"),
    ]
    return Table("What was measured", ("", "value"), rows)


def _measure_tables(measures: list[dict[str, Any]]) -> list[Table]:
    """One table for each modality: every measure of enough clips on the forms of the same clips."""
    tables = []
    for modality in dict.fromkeys(measure["modality"] for measure in measures):
        group = [m for m in measures if m["modality"] == modality and _is_shown(m)]
        if not group:
            continue
        extra = [name for name in _BEYOND_FORMS if any(name in measure for measure in group)]
        columns = ("measure", "clips", *FORMS, *(_BEYOND_FORMS[name] for name in extra), "better")
        rows = [
            (
                measure["name"],
                _counted(measure),
                *(shown(measure.get(form)) or "" for form in FORMS),
                *(_beyond(measure.get(name)) or "" for name in extra),
                measure["better"] or "",
            )
            for measure in group
        ]
        title = f"Measures of {modality}"
        tables.append(Table(title, columns, rows, INTERVAL_NOTE, _remarks(group)))
    return tables


def _is_shown(measure: dict[str, Any]) -> bool:
    return any(is_supported(measure[form]) for form in FORMS if form in measure)


def _counted(measure: dict[str, Any]) -> str:
    """Number of clips, and of the speakers or recordings they are of."""
    estimates = [measure[form] for form in FORMS if form in measure]
    largest = max(estimates, key=lambda estimate: estimate["n"])
    of = f" of {largest['clusters']}" if "clusters" in largest else ""
    return f"{largest['n']}{of}"


def _remarks(measures: list[dict[str, Any]]) -> list[str]:
    """How to read the figures: each note once, with the beginnings of the names it is for."""
    names: dict[str, list[str]] = {}
    for measure in measures:
        if measure["note"]:
            names.setdefault(measure["note"], []).append(measure["name"].partition(",")[0])
    return [f"{', '.join(dict.fromkeys(group))}: {note}." for note, group in names.items()]


def _too_few(measures: list[dict[str, Any]]) -> dict[str, str]:
    """Reason for each figure that was measured on too few clips to be printed, by family."""
    hidden: dict[tuple[str, int], list[str]] = {}
    for measure in measures:
        if not _is_shown(measure):
            family, _, of = measure["name"].partition(", ")
            count = max(measure[form]["n"] for form in FORMS if form in measure)
            hidden.setdefault((f"{measure['modality']}: {family}", count), []).append(of)
    return {
        family + f" ({', '.join(of)})" * any(of): f"{count} clips each; {MIN_CLIPS} are needed: "
        "raise per_modality, per_corpus or num_digits"
        for (family, count), of in hidden.items()
    }


def _beyond(estimate: dict[str, Any] | None) -> str | None:
    """An estimate with the number of its own clips."""
    figure = shown(estimate)
    return None if figure is None or estimate is None else f"{figure} ({estimate['n']} clips)"


def _comparison(comparison: dict[str, Any]) -> Table:
    rows = []
    for row in comparison["rows"]:
        difference = row["difference"]
        p = difference["p_adjusted"]
        rows.append((
            row["modality"], row["name"], difference["n"], row["ours"], row["theirs"],
            shown(difference), f"{p:.3f}" if p >= 0.001 else "< 0.001", _verdict(row, p),
        ))  # fmt: skip
    title = f"Against bundle {comparison['bundle_digest'][:12]}"
    columns = ("modality", "measure", "clips", "ours", "theirs", "difference", "p", "verdict")
    return Table(title, columns, rows, COMPARISON_NOTE)


def _verdict(row: dict[str, Any], p: float) -> str:
    if p >= _SIGNIFICANT:
        return "not significant"
    if row["better"] not in ("higher", "lower"):
        return "differs"
    is_higher = row["difference"]["value"] > 0
    return "better" if is_higher == (row["better"] == "higher") else "worse"


def _published(published: list[dict[str, Any]], measures: list[dict[str, Any]]) -> Table:
    def ours(name: str) -> str:
        """Cell with our figure of that name."""
        found = (m.get("generated") for m in measures if m["name"].startswith(name))
        estimate = next(found, None)
        if estimate is None:
            return NOT_RUN
        return shown(estimate) or f"too few clips: {estimate['n']}"

    rows = [
        (figure["measure"], figure["value"], figure["source"], ours(figure["measure"]))
        for figure in published
    ]
    note = "Published figures are of other models, data and recognisers."
    return Table("Published figures", ("measure", "published", "source", "here"), rows, note)


def _speed(timing: dict[str, Any]) -> Table:
    rows = [
        (modality, figures["real_time_factor"]["n"], shown(figures["real_time_factor"]))
        for modality, figures in timing.items()
        if modality != "workers"
    ]
    workers = timing["workers"]
    note = (
        f"Seconds of generation for each second of audio, one clip at a time in each of "
        f"{max(1, workers)} processes; it depends on what else the machine does."
    )
    return Table("Speed", ("modality", "clips", "real-time factor"), rows, note)
