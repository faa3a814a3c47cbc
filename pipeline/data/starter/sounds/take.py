"""What a sound class is, and what one take of it gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.data.starter.dsp import Generator, Wave

TEXTURE, EVENT = "texture", "event"


@dataclass(frozen=True)
class Take:
    """One rendering of a class, with the clause that is true of it.

    Attributes:
        wave: Mono waveform, at most of the requested duration.
        clause: Subject and predicate, lower case, e.g. `a dog barks three times`.
        count: Number of events; None if they cannot be counted.
    """

    wave: Wave
    clause: str
    count: int | None = None


@dataclass(frozen=True)
class SoundClass:
    """A kind of sound a listener can name.

    Attributes:
        name: Class label, e.g. `dog_bark`.
        keyword: Word that every clause of the class holds.
        label: Noun phrase that fits after `the sound of`.
        kind: `texture` goes on and on, `event` comes and is over.
        render: Makes a take from a generator and a duration in seconds.
        min_s: Shortest duration in which it can be recognised.
        can_be_far: Whether it is also rendered from a distance.
    """

    name: str
    keyword: str
    label: str
    kind: str
    render: Callable[[Generator, float], Take]
    min_s: float = 1.0
    can_be_far: bool = False


_TIMES = ("", "once", "twice", "three times", "four times", "five times", "six times")


def times_word(count: int) -> str:
    """`once`, `twice`, `three times`, ... up to six."""
    return _TIMES[count]


def pick_count(
    rng: Generator, duration_s: float, event_s: float, gap_s: float, most: int = 5
) -> int:
    """A number of events that fits into a duration: at least one, two where there is much room."""
    fits = max(1, min(most, int((duration_s + gap_s) / (event_s + gap_s))))
    least = 2 if fits >= 4 else 1
    return int(rng.integers(least, fits + 1))


def onsets(
    rng: Generator, duration_s: float, lengths_s: Sequence[float], gap_s: float
) -> list[float]:
    """Start times of events in order, with gaps of at least `gap_s`, all within the duration.

    The gaps share what is left over; events that are too long for it start as early as they can.
    """
    rest = duration_s - sum(lengths_s) - gap_s * (len(lengths_s) - 1)
    weights = rng.dirichlet(np.ones(len(lengths_s) + 1) * 4) * max(rest, 0.0)
    starts, clock = [], 0.0
    for length, slack in zip(lengths_s, weights[:-1], strict=True):
        clock += min(float(slack), 1.2)
        starts.append(clock)
        clock += length + gap_s
    return starts
