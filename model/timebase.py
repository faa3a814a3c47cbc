"""The only arithmetic between seconds, samples, frames and blocks.

Integers are the truth: samples at an integer rate, frames of an integer hop length, blocks of an
integer number of frames. Seconds are for people, and enter or leave through this module alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Timebase:
    """Rates of one codec.

    Attributes:
        sample_rate: Waveform rate, Hz.
        hop_length: Waveform samples per latent frame.

    Raises:
        ValueError: If either is not positive.
    """

    sample_rate: int
    hop_length: int

    def __post_init__(self) -> None:
        if self.sample_rate <= 0:
            raise ValueError(f"sample_rate is {self.sample_rate} Hz; it must be positive")
        if self.hop_length <= 0:
            raise ValueError(f"hop_length is {self.hop_length} samples; it must be positive")

    @property
    def frame_rate(self) -> float:
        """Latent frames per second, Hz."""
        return self.sample_rate / self.hop_length

    def num_frames(self, num_samples: int) -> int:
        """Frames that cover `num_samples`; the last may be partly padding."""
        return -(-_not_negative(num_samples, "num_samples") // self.hop_length)

    def num_samples(self, num_frames: int) -> int:
        """Samples that `num_frames` decode to."""
        return _not_negative(num_frames, "num_frames") * self.hop_length

    def samples_in(self, duration_s: float) -> int:
        """Whole samples nearest to a duration, halves upwards."""
        return round_half_up(_finite(duration_s) * self.sample_rate)

    def frames_in(self, duration_s: float) -> int:
        """Frames that cover a duration."""
        return self.num_frames(self.samples_in(duration_s))

    def duration_s(self, num_samples: int) -> float:
        """Duration of `num_samples`, seconds."""
        return _not_negative(num_samples, "num_samples") / self.sample_rate

    def frames_duration_s(self, num_frames: int) -> float:
        """Duration of `num_frames`, seconds."""
        return self.duration_s(self.num_samples(num_frames))


def num_blocks(num_frames: int, frames_per_block: int) -> int:
    """Blocks that cover `num_frames`; the last may be partly padding."""
    if frames_per_block <= 0:
        raise ValueError(f"frames_per_block is {frames_per_block}; it must be positive")
    return -(-_not_negative(num_frames, "num_frames") // frames_per_block)


def resampled_length(num_samples: int, source_rate: int, target_rate: int) -> int:
    """Samples left of `num_samples` after a change of rate, rounded up as resamplers do."""
    return -(-_not_negative(num_samples, "num_samples") * target_rate // source_rate)


def round_half_up(value: float) -> int:
    """Nearest integer, halves upwards; the builtin `round` goes to the even neighbour."""
    return math.floor(value + 0.5)


def _not_negative(count: int, name: str) -> int:
    if count < 0:
        raise ValueError(f"{name} is {count}; it must not be negative")
    return count


def _finite(duration_s: float) -> float:
    if not math.isfinite(duration_s) or duration_s < 0:
        raise ValueError(f"duration is {duration_s} s; it must be finite and not negative")
    return duration_s
