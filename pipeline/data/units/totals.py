"""What the commit records of a directory add up to; sums are exact, so their order is free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

from pipeline.data.units.commit_log import Record

NO_LANGUAGE = "none"
"""Stands in totals for clips without a language."""


def hours_key(modality: str, language: str | None) -> str:
    """Key of `totals` under which hours are added up by modality and language."""
    return f"hours/{modality}/{language or NO_LANGUAGE}"


def files_of(records: Iterable[Record], prefix: str = "") -> list[str]:
    """Names of the files that commit records list and that begin with a prefix, sorted."""
    return sorted(name for name, _ in digests_of(records) if name.startswith(prefix))


def digests_of(records: Iterable[Record]) -> Iterator[tuple[str, str]]:
    """Names and digests of the files that commit records list."""
    return (item for record in records for item in record["files"].items())


def summarise(records: Iterable[Record]) -> dict[str, Any]:
    """Counts and hours of a directory out of its commit records."""
    counts: Counter[str] = Counter(units=0, read=0, written=0, rejected=0)
    reasons: Counter[str] = Counter()
    sums: dict[str, Fraction] = {}
    for record in records:
        counts["units"] += 1
        for name in ("read", "written", "rejected"):
            counts[name] += record[name]
        reasons.update(record["rejected_by_reason"])
        for name, value in record["totals"].items():
            sums[name] = sums.get(name, Fraction()) + Fraction(value)
    totals = {name: float(value) for name, value in sorted(sums.items())}
    hours: dict[str, dict[str, float]] = {"by_modality": {}, "by_language": {}}
    for name in [name for name in totals if name.startswith("hours/")]:
        _, modality, language = name.split("/", 2)
        _add(hours["by_modality"], modality, totals[name])
        if language != NO_LANGUAGE:
            _add(hours["by_language"], language, totals[name])
        del totals[name]
    return {
        **counts,
        "rejected_by_reason": dict(sorted(reasons.items())),
        "hours": {
            by: {name: round(value, 6) for name, value in sorted(table.items())}
            for by, table in hours.items()
        },
        "totals": totals,
    }


def _add(table: dict[str, float], name: str, value: float) -> None:
    table[name] = table.get(name, 0.0) + value
