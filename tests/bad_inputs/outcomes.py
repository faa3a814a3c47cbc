"""What `ingest` makes of a directory of malformed inputs, case by case."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from pipeline.clip_tables import ClipTables
from pipeline.data.ingest import IngestSettings, ingest
from pipeline.data.screening.checks import CheckSettings
from pipeline.data.screening.refusals import RefusalSettings
from pipeline.data.segments import SegmentSettings
from pipeline.data.units.stage import Resources
from pipeline.storage import Folder, read_tables

EXPECTED = Path(__file__).with_name("expected.csv")
"""Path and outcome of every case."""
_KEPT = "kept"
_TOGETHER = ("json", "srt")
"""Groups of manifests that each speak of a file of their own name."""


def expected() -> dict[str, str]:
    """What must come of every case, by path."""
    with open(EXPECTED, encoding="utf-8", newline="") as lines:
        return {row["path"]: row["outcome"] for row in csv.DictReader(lines)}


def lay_out(source: Path, target: Path) -> dict[str, Path]:
    """Copy every case of `expected.csv` so that no two manifests speak of the same files.

    Args:
        source: Directory with `expected.csv`, whose column `path` names the cases.
        target: Directory to make.

    Returns:
        Folder in which each case is a corpus of its own, or lies with others of its kind.
    """
    places = {}
    with open(source / "expected.csv", encoding="utf-8", newline="") as lines:
        cases = [row["path"] for row in csv.DictReader(lines)]
    for number, case in enumerate(cases):
        parts = Path(case).parts
        if parts[0] != "manifests" or parts[1] in _TOGETHER:
            places[case] = target.joinpath(*parts[: 1 + (parts[0] == "manifests")])
            continue
        group, place = source / "manifests" / parts[1], target / f"case-{number:03d}-{parts[1]}"
        for path in sorted(group.rglob("*")):
            inside = path.relative_to(group)
            is_own = path == source / case
            is_audio = str(Path("manifests") / parts[1] / inside) not in cases
            if path.is_file() and (is_own or is_audio):
                (place / inside).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place / inside)
        places[case] = place
    for folder in {place for place in places.values() if not place.exists()}:
        shutil.copytree(source / folder.relative_to(target), folder)
    return places


def outcomes(source: Path, work: Path) -> dict[str, str]:
    """Outcome of every case: what was kept with which notes, and what was rejected for what.

    `2 kept, 1 malformed` are two clips and one reject row; `1 kept (clipped)` is a clip with a
    note. Audio that no manifest names any more is not counted.
    """
    places = lay_out(source, work / "in")
    ingest(
        IngestSettings(
            inputs=(str(work / "in"),),
            modality="speech",
            resources=Resources(workers=0),
            checks=CheckSettings(spare_characters=200),  # some audio was cut under its text
            segments=SegmentSettings(enabled=True),
            refusals=RefusalSettings(keep_duplicates=True),
            max_reject_share=1.0,
        ),
        Folder.at(work / "out"),
    )
    found: dict[str, Counter[str]] = {case: Counter() for case in places}
    out = Folder.at(work / "out")
    rejects = read_tables(out, out.listed("rejects/"))
    for row in [*ClipTables.of(out).read_all().to_pylist(), *rejects.to_pylist()]:
        case = _case_of(row["uri"], places, work / "in")
        if case is not None:
            found[case][_outcome(row)] += 1
    return {
        case: ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
        for case, counts in found.items()
    }


def _case_of(uri: str, places: dict[str, Path], root: Path) -> str | None:
    relative = Path(uri).relative_to(root)
    by_name = {case: case for case in places} | {
        str(Path(case).with_suffix(".ogg")): case for case in places if "/json/" in case
    }
    if str(relative) in by_name:
        return by_name[str(relative)]
    owners = [case for case, place in places.items() if place.name == relative.parts[0]]
    return owners[0] if len(owners) == 1 else None


def _outcome(row: dict[str, Any]) -> str:
    if "reason" in row:
        return str(row["reason"])
    notes = sorted({note.partition(":")[0] for note in row["notes"]})
    return f"{_KEPT} ({', '.join(notes)})" if notes else _KEPT
