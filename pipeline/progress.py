"""Progress lines in the log of a job: written by trainings, read by the commands that follow jobs.

The log is the only thing that a client of a cluster can always read, so progress travels in it.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

_DAY_S = 86400
_LINE = re.compile(
    r"(?:(?P<time>\d\d:\d\d:\d\d) \w+ [\w.]+: )"
    r"(?:step (?P<step>\d+) of (?P<steps>\d+): (?P<step_note>loss [^,\s]+)"
    r"(?:.*(?P<wait>, data wait \d+%))?"
    r"|(?P<stage>[\w-]+): (?P<unit>\d+)/(?P<units>\d+) units, (?P<unit_note>.*)"
    r"|saved the checkpoint of step (?P<saved>\d+))"
)
_WINDOW = 20
"""Progress lines that the rate is measured over."""


def step_line(step: int, num_steps: int, loss: float, more: str = "") -> str:
    """Log line of a training step; `ProgressReader` reads it."""
    return f"step {step} of {num_steps}: loss {loss:.4f}{', ' * bool(more)}{more}"


def checkpoint_line(step: int) -> str:
    """Log line of a checkpoint that is complete; `ProgressReader` reads it."""
    return f"saved the checkpoint of step {step}"


@dataclass(frozen=True)
class Progress:
    """How far a job is.

    Attributes:
        done: Steps or units that are done.
        total: Steps or units of the whole job, or of its current stage.
        unit: `step`, or `unit` after the name of a data stage.
        note: Loss of a training, or counts of a data stage.
        rate: Steps or units per second, checkpoints included; None before two lines were read.
        checkpoint: Step of the newest checkpoint; None without one.
    """

    done: int
    total: int
    unit: str
    note: str
    rate: float | None = None
    checkpoint: int | None = None

    @property
    def remaining_s(self) -> float | None:
        """Time to the end at the current rate, seconds; None without a rate."""
        return (self.total - self.done) / self.rate if self.rate else None

    def __str__(self) -> str:
        parts = [f"{self.unit} {self.done} of {self.total}", self.note]
        if self.rate is not None and self.remaining_s is not None:
            parts += [f"{self.rate:.3g}/s", f"{duration_text(self.remaining_s)} left"]
        if self.checkpoint is not None:
            parts.append(f"last checkpoint at step {self.checkpoint}")
        return ", ".join(parts)


def duration_text(seconds: float) -> str:
    """A duration with its two largest units: `2 d 3 h`, `4 min 5 s`."""
    rest = round(seconds)
    for size, unit, small_size, small_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if rest >= size:
            return f"{rest // size} {unit} {rest % size // small_size} {small_unit}"
    return f"{rest // 60} min {rest % 60} s" if rest >= 60 else f"{rest} s"


class ProgressReader:
    """Reads progress from the lines of a job's log.

    Attributes:
        progress: The newest progress; None before the first line that states any.
    """

    def __init__(self) -> None:
        self.progress: Progress | None = None
        self._checkpoint: int | None = None
        self._points: deque[tuple[int, int]] = deque(maxlen=_WINDOW)

    def read(self, line: str) -> bool:
        """Take one line of the log; returns whether it states progress."""
        found = _LINE.search(line)
        if found is None:
            return False
        if found["saved"] is not None:
            self._checkpoint = int(found["saved"])
            if self.progress is not None:
                self._set(self.progress.done, self.progress.total, self.progress.unit, "")
            return True
        if found["step"] is not None:
            done, total, unit = int(found["step"]), int(found["steps"]), "step"
            note = found["step_note"] + (found["wait"] or "")
        else:
            done, total, unit = int(found["unit"]), int(found["units"]), f"{found['stage']}: unit"
            note = found["unit_note"]
        if self.progress is not None and (unit != self.progress.unit or done < self.progress.done):
            self._points.clear()  # another stage, or a restart from a checkpoint
        hours, minutes, seconds = map(int, found["time"].split(":"))
        self._points.append((hours * 3600 + minutes * 60 + seconds, done))
        self._set(done, total, unit, note)
        return True

    def _set(self, done: int, total: int, unit: str, note: str) -> None:
        if not note and self.progress is not None:
            note = self.progress.note
        self.progress = Progress(done, total, unit, note, self._rate(), self._checkpoint)

    def _rate(self) -> float | None:
        if len(self._points) < 2:
            return None
        (first_s, first), (last_s, last) = self._points[0], self._points[-1]
        elapsed_s = (last_s - first_s) % _DAY_S  # the log states no dates
        return (last - first) / elapsed_s if elapsed_s and last > first else None
