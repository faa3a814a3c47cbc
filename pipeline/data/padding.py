"""Digital silence at the ends of a clip, with which corpora pad clips to one length.

A model that is trained on it learns that sounds end in nothing. Rooms are never so quiet, so it can
be told from a pause.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from model.timebase import round_half_up
from pipeline.data.schema import ClipRow

_SILENCE = 2.0**-16
"""What is smaller is zero in 16 bits."""


class PaddingFilter:
    """Passes the blocks of a clip without the digital silence at its ends.

    Silence that is not longer than the limit passes, and so does a clip of nothing else.

    Args:
        sample_rate: Hz.
        limit_s: Longest silence at an end that passes, seconds; None passes all.

    Attributes:
        before: Samples cut off at the start.
        after: Samples cut off at the end, once all blocks have passed.
    """

    def __init__(self, sample_rate: int, limit_s: float | None) -> None:
        self._rate = sample_rate
        self._limit = None if limit_s is None else round_half_up(limit_s * sample_rate)
        self.before = self.after = 0

    def blocks(self, blocks: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """The blocks, `channels samples` each, as they come; held back is a number, no audio."""
        if self._limit is None:
            yield from blocks
            return
        num_silent, num_channels, is_first = 0, 1, True
        for block in blocks:
            num_channels = len(block)
            sounding = np.flatnonzero(~(np.abs(block) < _SILENCE).all(axis=0))  # NaN is no silence
            if not len(sounding):
                num_silent += block.shape[1]
                continue
            num_silent += int(sounding[0])
            if is_first and num_silent > self._limit:
                self.before, num_silent = num_silent, 0
            if num_silent:
                yield _silence(num_channels, num_silent)
            yield block[:, sounding[0] : sounding[-1] + 1]
            num_silent, is_first = block.shape[1] - 1 - int(sounding[-1]), False
        if is_first or num_silent <= self._limit:
            if num_silent:
                yield _silence(num_channels, num_silent)
        else:
            self.after = num_silent

    @property
    def duration_s(self) -> float:
        """What was cut off, seconds."""
        return (self.before + self.after) / self._rate

    @property
    def notes(self) -> tuple[str, ...]:
        """Says what was cut off, if anything was."""
        if not self.duration_s:
            return ()
        return (f"padding: {self.duration_s:.2f} s of digital silence at the ends were cut off",)

    def cut(self, clip: ClipRow, duration_s: float) -> ClipRow:
        """The row of what has passed; the clip itself if nothing was cut off.

        Args:
            clip: The clip.
            duration_s: All of it, seconds.
        """
        if not self.duration_s:
            return clip
        start_s = clip.start_s or 0.0
        return replace(
            clip,
            start_s=start_s + self.before / self._rate,
            end_s=start_s + duration_s - self.after / self._rate,
            notes=clip.notes + self.notes,
        )


def _silence(num_channels: int, num_samples: int) -> NDArray[np.float32]:
    return np.zeros((num_channels, num_samples), dtype=np.float32)
