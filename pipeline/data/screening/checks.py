"""Checks of decoded clips: length, level, finite values, and room for the words.

Everything is measured block by block, so that a long file costs no more memory than a short one.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from pydantic import Field

from pipeline.audio.files import MAX_OVERSHOOT, cancels
from pipeline.data.rejects import Reason
from pipeline.data.schema import ClipRow
from pipeline.data.screening.bandwidth import BandwidthMeter
from pipeline.data.screening.fingerprints import Fingerprinter, to_bytes
from pipeline.data.screening.languages import language_mismatch
from pipeline.settings import Settings

FULL_SCALE = 0.999
"""Magnitude from which a sample counts as clipped."""
_AUDIBLE_RATE = 48_000  # what a higher rate could hold, nobody hears and no codec keeps
_SLOW_SPEECH = 0.5  # characters a second under which a transcript is probably not all that is said


class CheckSettings(Settings):
    """Limits beyond which a clip is rejected, or an oddity is noted on it."""

    min_duration_s: float = Field(default=0.05, gt=0)
    """Duration below which a clip is rejected, seconds."""
    max_duration_s: float = Field(default=600.0, gt=0)
    """Duration above which a clip is rejected, seconds."""
    min_peak_dbfs: float = Field(default=-60.0, lt=0)
    """Peak below which a clip is rejected as silent, dB of full scale."""
    max_clipped_share: float = Field(default=0.95, gt=0, le=1)
    """Share of samples at full scale above which nothing is left of the sound, and the clip is
    rejected; overdriven recordings stay far below."""
    note_clipped_share: float = Field(default=0.001, gt=0, le=1)
    """Share of samples at full scale above which clipping is noted."""
    note_dc_offset: float = Field(default=0.05, gt=0)
    """Mean sample value above which a DC offset is noted."""
    max_characters_per_s: float = Field(default=35.0, gt=0)
    """Characters of the transcript per second above which a clip is rejected."""
    spare_characters: int = Field(default=12, ge=0)
    """Characters that are allowed in addition, for clips of one word."""
    duration_tolerance_s: float = Field(default=0.5, ge=0)
    """Largest error of the declared duration, seconds."""
    duration_tolerance_share: float = Field(default=0.02, ge=0)
    """Largest error of the declared duration, as a share of it; the larger of the two applies."""
    min_bandwidth_share: float = Field(default=0.2, ge=0, lt=1)
    """Share of half the sample rate (of 24 kHz at most) below which a low-pass filter is a
    reject."""
    note_bandwidth_share: float = Field(default=0.5, ge=0, lt=1)
    """Share of half the sample rate below which a low-pass filter is noted."""
    checks_language: bool = True
    """Whether a transcript that is plainly in another language than its tag is rejected."""


class UnfitError(Exception):
    """A clip that must not be used."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Measured:
    """Measurements of a decoded clip.

    Attributes:
        num_samples: Samples per channel.
        sample_rate: Hz.
        num_channels: Channels.
        fingerprint: SHA-256 of the samples in 16 bits: equal for the same audio in any lossless
            container.
        acoustic: Words of the acoustic fingerprint; see `pipeline.data.screening.fingerprints`.
        notes: Oddities that did not cost the clip.
    """

    num_samples: int
    sample_rate: int
    num_channels: int
    fingerprint: str
    acoustic: bytes
    notes: tuple[str, ...]

    @property
    def duration_s(self) -> float:
        """Seconds."""
        return self.num_samples / self.sample_rate


class Meter:
    """Adds up a clip block by block.

    Args:
        sample_rate: Hz.
        num_channels: Channels.
        settings: Limits.
    """

    def __init__(self, sample_rate: int, num_channels: int, settings: CheckSettings) -> None:
        self._rate = sample_rate
        self._channels = num_channels
        self._settings = settings
        self._num_samples = 0
        self._num_clipped = 0
        self._peak = 0.0
        self._mix_power = 0.0
        self._sum = np.zeros(num_channels)
        self._power = np.zeros(num_channels)
        self._fingerprinter = Fingerprinter(sample_rate)
        self._bandwidth = BandwidthMeter(sample_rate)
        self._digest = hashlib.sha256(f"{sample_rate} Hz, {num_channels} channels".encode())

    def add(self, block: Float[np.ndarray, "channels samples"]) -> None:
        """Measure the next block.

        Raises:
            UnfitError: As soon as a block shows that the clip is no good.
        """
        magnitude = np.abs(block)
        peak = float(magnitude.max(initial=0.0))
        if not math.isfinite(peak):
            odd = ~np.isfinite(block)
            first = self._num_samples + int(odd.any(axis=0).argmax())
            raise UnfitError(
                Reason.NON_FINITE,
                f"NaN or infinite samples, the first at {first / self._rate:.4f} s",
            )
        if peak > MAX_OVERSHOOT:
            raise UnfitError(
                Reason.OUT_OF_RANGE,
                f"peak {peak:g}, limit {MAX_OVERSHOOT:g}: float samples must be scaled to [-1, 1]",
            )
        self._num_samples += block.shape[1]
        if self._num_samples > self._settings.max_duration_s * self._rate:
            raise UnfitError(
                Reason.TOO_LONG, f"longer than the limit of {self._settings.max_duration_s:g} s"
            )
        wide = block.astype(np.float64)
        self._peak = max(self._peak, peak)
        self._num_clipped += int((magnitude >= FULL_SCALE).sum())
        self._sum += wide.sum(axis=1)
        self._power += np.square(wide).sum(axis=1)
        self._mix_power += float(np.square(wide.mean(axis=0)).sum())
        whole = np.round(np.clip(block, -1, 1) * np.float32(32_768)).astype("<i4")  # exact
        self._fingerprinter.add(block)
        self._bandwidth.add(block)
        self._digest.update(np.ascontiguousarray(whole.T).tobytes())

    def result(self) -> Measured:
        """The measurements of the whole clip.

        Raises:
            UnfitError: If it is too short, silent, clipped throughout, or was upsampled by much.
        """
        limits = self._settings
        duration_s = self._num_samples / self._rate
        if duration_s < limits.min_duration_s:
            raise UnfitError(
                Reason.TOO_SHORT,
                f"{self._num_samples} samples, {duration_s:.4f} s; at least "
                f"{limits.min_duration_s:g} s are needed",
            )
        peak_dbfs = 20 * math.log10(self._peak) if self._peak > 0 else -math.inf
        if peak_dbfs < limits.min_peak_dbfs:
            raise UnfitError(
                Reason.SILENT,
                f"peak {peak_dbfs:.1f} dBFS; at least {limits.min_peak_dbfs:g} dBFS is needed",
            )
        clipped = self._num_clipped / (self._num_samples * self._channels)
        if clipped > limits.max_clipped_share:
            raise UnfitError(
                Reason.CLIPPED,
                f"{clipped:.1%} of the samples at full scale, limit {limits.max_clipped_share:.1%}",
            )
        notes = [*self._notes(clipped), *self._check_bandwidth()]
        return Measured(
            self._num_samples,
            self._rate,
            self._channels,
            self._digest.hexdigest(),
            to_bytes(self._fingerprinter.result()),
            tuple(notes),
        )

    def _check_bandwidth(self) -> list[str]:
        cutoff_hz, limits = self._bandwidth.cutoff_hz(), self._settings
        share = 1.0 if cutoff_hz is None else cutoff_hz / (min(self._rate, _AUDIBLE_RATE) / 2)
        text = f"a low-pass filter at {cutoff_hz or 0:.0f} Hz, {self._rate} Hz sample rate"
        if share < limits.min_bandwidth_share:
            raise UnfitError(
                Reason.NARROW_BANDWIDTH,
                f"{text}: {share:.2f} of what it could hold, limit "
                f"{limits.min_bandwidth_share:g}; give the recording before it was upsampled",
            )
        return [f"narrow_bandwidth: {text}"] if share < limits.note_bandwidth_share else []

    def _notes(self, clipped: float) -> list[str]:
        power = self._power / self._num_samples
        offset = float(np.abs(self._sum / self._num_samples).max())
        notes = []
        if clipped > self._settings.note_clipped_share:
            notes.append(f"clipped: {clipped:.2%} of the samples at full scale")
        if self._peak > 1.0:
            notes.append(f"overshoot: peak {self._peak:.3f}, scaled when read")
        if offset > self._settings.note_dc_offset:
            notes.append(f"dc_offset: mean sample {offset:.3f}")
        if self._channels > 1:
            if power.min() < 1e-6 * power.max():
                notes.append("silent_channel: at least one channel is silent")
            elif cancels(self._mix_power / self._num_samples, float(power.max())):
                notes.append("antiphase: the channels cancel in a mix to mono")
        return notes


def check_declared(row: ClipRow, duration_s: float, settings: CheckSettings) -> tuple[str, ...]:
    """Whether the duration that the corpus says is the one that was found; returns what is odd.

    Raises:
        UnfitError: If a transcript may go on where the audio ends.
    """
    declared_s = row.declared_duration_s
    if declared_s is None:
        return ()
    tolerance_s = max(settings.duration_tolerance_s, settings.duration_tolerance_share * declared_s)
    message = f"{declared_s:.2f} s declared, {duration_s:.2f} s found"
    if row.transcript and duration_s < declared_s - tolerance_s:
        raise UnfitError(
            Reason.WRONG_DURATION, f"{message}: the transcript may go on where the audio ends"
        )
    return (f"wrong_duration: {message}",) if abs(duration_s - declared_s) > tolerance_s else ()


def check_transcript(row: ClipRow, duration_s: float, settings: CheckSettings) -> tuple[str, ...]:
    """Whether the transcript can be what is heard; returns what is odd.

    Raises:
        UnfitError: If it cannot.
    """
    if not row.transcript:
        return ()
    count = len(row.transcript)
    limit = settings.max_characters_per_s * duration_s + settings.spare_characters
    if count > limit:
        raise UnfitError(
            Reason.TRANSCRIPT_TOO_LONG,
            f"{count} characters in {duration_s:.2f} s, at most {limit:.0f} are believed",
        )
    if settings.checks_language and row.language:
        why = language_mismatch(row.transcript, row.language)
        if why:
            raise UnfitError(
                Reason.LANGUAGE_MISMATCH,
                f"tagged {row.language!r}, but {why}; mend the tag, or set checks.checks_language",
            )
    if count < _SLOW_SPEECH * duration_s:
        return (f"few_words: {count} characters in {duration_s:.1f} s",)
    return ()
