"""Paired timing: the thing and its alternative in turn, the median of the ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Row:
    """One measured comparison.

    Attributes:
        what: The thing measured, with its size.
        value: Its own figure with unit, as text.
        against: The named alternative of the same run.
        ratio: How many times less time it takes than the alternative.
        spread: Smallest and largest ratio of the pairs.
    """

    what: str
    value: str
    against: str
    ratio: float
    spread: tuple[float, float]

    @staticmethod
    def header() -> str:
        """Head of a markdown table."""
        return "| what | value | against | times faster | min..max |\n|---|---|---|---|---|"

    def __str__(self) -> str:
        low, high = self.spread
        cells = (self.what, self.value, self.against, f"{self.ratio:.2f}", f"{low:.2f}..{high:.2f}")
        return f"| {' | '.join(cells)} |"


def compare(
    what: str,
    run: Callable[[], object],
    against: str,
    alternative: Callable[[], object],
    repeats: int,
    value: Callable[[float], str] = lambda seconds: f"{seconds * 1e3:.1f} ms",
    *,
    warms_up: bool = True,
) -> Row:
    """Time `run` and `alternative` in turn, after one warm-up of each.

    Args:
        what: Name of the first.
        run: The first.
        against: Name of the second.
        alternative: The second.
        repeats: Pairs counted.
        value: Text of the first's median seconds.
        warms_up: Whether each runs once uncounted; runs of minutes need not.
    """
    if warms_up:
        seconds(run)
        seconds(alternative)
    pairs = [(seconds(run), seconds(alternative)) for _ in range(repeats)]
    ratios = [theirs / ours for ours, theirs in pairs]
    median = statistics.median(ours for ours, _ in pairs)
    return Row(what, value(median), against, statistics.median(ratios), (min(ratios), max(ratios)))


def seconds(run: Callable[[], object]) -> float:
    """Wall seconds of one call, its work on a GPU included."""
    _settle()
    started = time.perf_counter()
    run()
    _settle()
    return time.perf_counter() - started


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second that a large matrix product reaches now: what utilisation divides by."""
    size = 8192 if device.type == "cuda" else 1024
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best = min(seconds(lambda: left @ right) for _ in range(8))
    return 2 * size**3 / best


def _settle() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
