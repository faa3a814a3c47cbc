"""What a stage would do, and how long it would take, without doing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.data.units.commits import REJECTED, Unit
from pipeline.storage import Folder

_MIN_GAPS = 3


@dataclass(frozen=True)
class Preview:
    """The work of a stage that is not done yet.

    Attributes:
        stage: Its name.
        uri: Its directory.
        num_units: Units of the whole plan.
        pending: Units to be done.
        num_stale: Units of other inputs or settings to be taken away, those to be redone included.
        left_s: Time that the pending units take, seconds; None where nothing tells.
        basis: What the time rests on.
    """

    stage: str
    uri: str
    num_units: int
    pending: tuple[Unit, ...]
    num_stale: int
    left_s: float | None
    basis: str

    def __str__(self) -> str:
        parts = [f"{self.stage}: would do {len(self.pending)} of {self.num_units} units"]
        if self.num_stale:
            parts.append(f"take away {self.num_stale} old ones")
        took = "unknown" if self.left_s is None else f"about {_spoken(self.left_s)}"
        return f"{', '.join(parts)} in {self.uri}; time {took} ({self.basis})"


def preview_stage(
    folder: Folder, stage: str, units: Sequence[Unit], pending: Sequence[Unit], stale: Sequence[str]
) -> Preview:
    """The work left, timed by the pace at which the units done so far were written.

    The pace is the median time between one unit and the next, so a pause between two runs does
    not count; it holds for as many workers as there were then.
    """
    times = folder.child(REJECTED).times_ns(".parquet")  # every unit has one
    gaps = np.diff(np.sort(np.array(times, np.float64))) / 1e9
    pace_s = float(np.median(gaps)) if len(gaps) >= _MIN_GAPS else None
    left_s = None if pace_s is None else pace_s * len(pending)
    basis = "no units are done that could be timed"
    if pace_s is not None:
        basis = f"{len(times)} units done, one every {pace_s:.2g} s"
    return Preview(stage, folder.uri, len(units), tuple(pending), len(stale), left_s, basis)


def _spoken(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
