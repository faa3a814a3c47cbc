"""Long recordings cut into segments at pauses, in one pass over their samples.

The segments of a recording tile it: every sample lies in exactly one of them. Memory holds one
segment and what follows it, however long the recording is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from pydantic import Field

from model.timebase import round_half_up
from pipeline.data.schema import ClipRow
from pipeline.settings import Settings

_HOP_S = 0.01
_PAUSE_S = 0.2  # the level is judged over this long: closures inside words are shorter
_PAUSE_BELOW_LOUD_DB = 15.0  # speech and its pauses differ by more, even in noisy rooms
_LATENESS_DB = 6.0  # how much louder a pause may be if it makes the segment as long as allowed
_FLOOR = 1e-10


class SegmentSettings(Settings):
    """Settings of the cutting of long recordings into segments."""

    enabled: bool = False
    """Whether long recordings are cut; otherwise only the checks limit their length."""
    speech_s: float = Field(default=30.0, ge=1)
    """Longest segment of speech, seconds."""
    sound_s: float = Field(default=30.0, ge=1)
    """Longest segment of sound, seconds."""
    music_s: float = Field(default=60.0, ge=1)
    """Longest segment of music, seconds."""
    min_s: float = Field(default=2.0, gt=0)
    """Shortest segment, seconds; at most a quarter of the longest."""
    max_recording_s: float = Field(default=6 * 3600.0, gt=0)
    """Duration above which a recording is rejected whole, seconds."""
    keep_transcribed: bool = True
    """A clip with a transcript is never cut, as nothing says which words lie where. True leaves it
    whole up to the limit of the checks; False rejects it where it is longer than a segment."""

    max_padding_s: float | None = Field(default=0.1, ge=0)
    """Longest digital silence at an end of a clip, seconds; what is longer is cut off. None keeps
    it."""

    def limit_s(self, modality: str) -> float:
        """Longest segment of a modality, seconds."""
        return {"speech": self.speech_s, "sound": self.sound_s, "music": self.music_s}[modality]


@dataclass(frozen=True)
class Segment:
    """One piece of a recording.

    Attributes:
        start: First sample, counted from the start of the recording or of its span.
        waveform: Samples of the segment.
        is_at_pause: Whether it ends in a pause, or at the end of the recording.
    """

    start: int
    waveform: Float[np.ndarray, "channels samples"]
    is_at_pause: bool

    @property
    def end(self) -> int:
        """The sample after the last."""
        return self.start + self.waveform.shape[1]


def cut(
    blocks: Iterable[Float[np.ndarray, "channels samples"]],
    sample_rate: int,
    *,
    max_s: float,
    min_s: float,
    offset: int = 0,
) -> Iterator[Segment]:
    """Segments of a recording, in order; one alone if it is no longer than the limit.

    A cut lies in the quietest 0.2 s of the second half of what a segment may be, a little in favour
    of late ones, and on a whole millisecond of the file. It does not depend on the size of blocks.

    Args:
        blocks: The recording.
        sample_rate: Hz.
        max_s: Longest segment, seconds.
        min_s: Shortest, seconds; at most a quarter of `max_s` is used.
        offset: Samples of the file before the recording.
    """
    longest = round_half_up(max_s * sample_rate)
    shortest = min(round_half_up(min_s * sample_rate), longest // 4)
    held: list[NDArray[np.float32]] = []
    start = num_held = 0
    for block in blocks:
        held.append(block)
        num_held += block.shape[1]
        # What is left over after a cut must be long enough for a segment of its own.
        while num_held >= longest + shortest:
            waveform = np.concatenate(held, axis=1)
            segment = _first(waveform, start, sample_rate, longest, offset)
            yield segment
            rest = waveform[:, segment.end - start :]
            held, start, num_held = [rest], segment.end, rest.shape[1]
    if not num_held:
        return
    waveform = np.concatenate(held, axis=1)
    if num_held > longest:
        segment = _first(waveform, start, sample_rate, min(longest, num_held - shortest), offset)
        yield segment
        waveform, start = waveform[:, segment.end - start :], segment.end
    yield Segment(start, waveform, True)


def segment_row(clip: ClipRow, start_s: float, end_s: float) -> ClipRow:
    """The row of a segment: its recording's, under an id that holds its times in the file."""
    return replace(
        clip,
        clip_id=f"{clip.clip_id}@{start_s:.3f}-{end_s:.3f}",
        start_s=start_s,
        end_s=end_s,
        declared_duration_s=None,
    )


def _first(
    waveform: NDArray[np.float32], start: int, sample_rate: int, longest: int, offset: int
) -> Segment:
    """The first segment of what is held, between half of the limit and all of it."""
    hop = max(1, sample_rate // round(1 / _HOP_S))
    levels = _levels(waveform[:, :longest], hop)
    width = max(1, round(_PAUSE_S / _HOP_S))
    sums = np.concatenate([[0.0], np.cumsum(levels)])
    smooth = 10 * np.log10((sums[width:] - sums[:-width]) / width + _FLOOR)
    first = min(len(levels) // 2, len(smooth) - 1)
    lateness = np.linspace(0, 1, len(smooth) - first)
    costs = smooth[first:] - _LATENESS_DB * lateness
    best = len(costs) - 1 - int(np.argmin(costs[::-1]))
    at = (first + best + width // 2) * hop
    time_s = round((offset + start + at) / sample_rate, 3)
    end = round_half_up(time_s * sample_rate) - offset
    loud = 10 * np.log10(np.percentile(levels, 95) + _FLOOR)
    is_at_pause = bool(smooth[first + best] <= loud - _PAUSE_BELOW_LOUD_DB) or bool(loud < -60)
    return Segment(start, waveform[:, : end - start], is_at_pause)


def _levels(waveform: NDArray[np.float32], hop: int) -> NDArray[np.float64]:
    """Power in steps of `hop` samples; what is not finite counts as silence."""
    count = waveform.shape[1] // hop
    steps = np.nan_to_num(waveform[:, : count * hop], nan=0.0, posinf=0.0, neginf=0.0)
    power = np.einsum("cns,cns->n", *[steps.reshape(len(steps), count, hop)] * 2)
    levels: NDArray[np.float64] = power.astype(np.float64) / (hop * len(waveform))
    return levels
