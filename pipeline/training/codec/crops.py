"""Random crops of ingested clips, as a pure function of seed, step and position in the step.

The choice of a crop never depends on the number of workers, on the cache, or on a restart. Small
corpora are decoded once and kept as 16-bit samples; of large ones only the crops are decoded.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.timebase import round_half_up
from pipeline.audio.files import AudioError, read_audio, resample, to_channels
from pipeline.clip_tables import ClipTables
from pipeline.errors import PipelineError
from pipeline.storage import Folder, iter_rows

logger = logging.getLogger(__name__)

_COLUMNS = ["uri", "start_s", "end_s", "split", "sample_rate", "num_samples", "modality"]
_ATTEMPTS = 16
_MARGIN_S = 0.05
"""Margin that is read around a crop, so that the edges of the resampler fall outside of it."""


class CropError(PipelineError):
    """No crop can be made of the clips."""


@dataclass(frozen=True)
class ClipSpan:
    """The part of one row of `clips/` that crops need.

    Attributes:
        uri: Audio file.
        start_sample: Start of the clip in its file, samples at the file's rate.
        num_samples: Length at the file's rate.
        sample_rate: Rate of the file, Hz.
        modality: speech, sound or music.
    """

    uri: str
    start_sample: int
    num_samples: int
    sample_rate: int
    modality: str

    @property
    def duration_s(self) -> float:
        """Length, seconds."""
        return self.num_samples / self.sample_rate


def read_spans(clips: Folder, split: str) -> list[ClipSpan]:
    """Clips of one split, in the order of the directory.

    Raises:
        IncompleteError: If the directory is not complete.
    """
    table = ClipTables.of(clips).read_all(_COLUMNS)
    return [_span(row) for row in iter_rows(table) if row["split"] == split and row["num_samples"]]


class CropSource:
    """Crops at the codec's rate and channel count.

    Args:
        spans: Clips to choose from.
        sample_rate: Rate of the crops, Hz.
        num_channels: Channels of the crops; mono files are duplicated, others averaged to mono.
        crop_samples: Length of a crop; shorter clips are followed by silence.
        weights: Relative share of each modality; 1 for modalities that are not named.
        memory_limit_bytes: Largest corpus that is kept decoded.

    Raises:
        CropError: If there are no clips, or none of a modality with weight.
    """

    def __init__(
        self,
        spans: Sequence[ClipSpan],
        *,
        sample_rate: int,
        num_channels: int,
        crop_samples: int,
        weights: Mapping[str, float],
        memory_limit_bytes: int,
    ) -> None:
        self.sample_rate, self.num_channels = sample_rate, num_channels
        self.crop_samples = crop_samples
        self._spans = list(spans)
        self._pools = _pools(self._spans, weights, crop_samples / sample_rate)
        size = sum(span.duration_s for span in spans) * sample_rate * num_channels * 2
        self.is_kept = size <= memory_limit_bytes
        self._kept: dict[int, NDArray[np.int16]] = {}
        self._unreadable: set[int] = set()
        self._lock = threading.Lock()

    @property
    def num_unreadable(self) -> int:
        """Clips that could not be decoded so far; each was replaced by another."""
        return len(self._unreadable)

    def crop(self, seed: int, step: int, index: int) -> NDArray[np.float32]:
        """The crop at one position of one step, `channels samples`.

        A clip that cannot be decoded gives its place to the next one drawn, the same every time.

        Raises:
            CropError: If none of several clips can be decoded.
        """
        for chosen, position in self._draws(seed, step, index):
            try:
                return self._cut(chosen, position)
            except AudioError as error:
                self._note(chosen, error)
        raise CropError(
            f"{_ATTEMPTS} clips in a row could not be decoded, the last one "
            f"{self._spans[chosen].uri}; were the audio files moved since ingest?"
        )

    def clips(self, seed: int, step: int, indices: Sequence[int]) -> list[str]:
        """Files that the crops of a step come from, sorted, without those known to be
        unreadable."""
        draws = (self._draws(seed, step, index) for index in indices)
        chosen = (next((n for n, _ in d if n not in self._unreadable), None) for d in draws)
        return sorted({self._spans[number].uri for number in chosen if number is not None})

    def _draws(self, seed: int, step: int, index: int) -> Iterator[tuple[int, float]]:
        """Clips and positions in them, in the order in which they are tried."""
        names, cumulated, pools = self._pools
        for attempt in range(_ATTEMPTS):
            random = np.random.default_rng([seed, step, index, attempt])
            members, members_cumulated = pools[names[_drawn(cumulated, random)]]
            chosen = int(members[_drawn(members_cumulated, random)])
            yield chosen, float(random.random())

    def batch(self, seed: int, step: int, indices: Sequence[int]) -> NDArray[np.float32]:
        """Crops at several positions of a step, `batch channels samples`."""
        return np.stack([self.crop(seed, step, index) for index in indices])

    def _cut(self, chosen: int, position: float) -> NDArray[np.float32]:
        span = self._spans[chosen]
        if self.is_kept:
            samples = self._kept.get(chosen)
            if samples is None:
                samples = _as_int16(self._decode(span, span.start_sample, span.num_samples))
                self._kept[chosen] = samples
            start = round_half_up(position * max(0, samples.shape[1] - self.crop_samples))
            cut = _as_float32(samples[:, start : start + self.crop_samples])
        else:
            cut = self._read(span, position)
        return np.pad(cut, ((0, 0), (0, self.crop_samples - cut.shape[1])))

    def _read(self, span: ClipSpan, position: float) -> NDArray[np.float32]:
        wanted = -(-self.crop_samples * span.sample_rate // self.sample_rate)
        first = round_half_up(position * max(0, span.num_samples - wanted))
        margin = min(first, round_half_up(_MARGIN_S * span.sample_rate))
        length = min(span.num_samples - first + margin, wanted + 2 * margin)
        samples = self._decode(span, span.start_sample + first - margin, length)
        skipped = round_half_up(margin * self.sample_rate / span.sample_rate)
        return samples[:, skipped : skipped + self.crop_samples]

    def _decode(self, span: ClipSpan, start: int, length: int) -> NDArray[np.float32]:
        rate = span.sample_rate
        audio = read_audio(span.uri, start / rate, (start + length) / rate, is_exact=False)
        channels = to_channels(audio.waveform, self.num_channels)
        return resample(channels, audio.sample_rate, self.sample_rate)

    def _note(self, chosen: int, error: Exception) -> None:
        with self._lock:
            if chosen not in self._unreadable:
                self._unreadable.add(chosen)
                logger.warning("clip %s is left out: %s", self._spans[chosen].uri, error)


def _span(row: dict[str, Any]) -> ClipSpan:
    rate = int(row["sample_rate"])
    return ClipSpan(
        uri=row["uri"],
        start_sample=round_half_up((row["start_s"] or 0.0) * rate),
        num_samples=int(row["num_samples"]),
        sample_rate=rate,
        modality=row["modality"],
    )


_Pool = tuple[NDArray[np.int64], NDArray[np.float64]]


def _pools(
    spans: Sequence[ClipSpan], weights: Mapping[str, float], crop_s: float
) -> tuple[list[str], NDArray[np.float64], dict[str, _Pool]]:
    """Modalities, their shares, and each one's clips with shares by the crops they hold.

    The shares are cumulated here, once: it is a pass over all clips.
    """
    present = sorted({span.modality for span in spans})
    names = [name for name in present if weights.get(name, 1.0) > 0]
    if not names:
        raise CropError(
            f"no clips to crop: {len(spans)} clips of {', '.join(present) or 'no modality'}, "
            f"weights {dict(weights)}; ingest audio, or give a present modality weight"
        )
    shares = np.array([weights.get(name, 1.0) for name in names])
    pools = {}
    for name in names:
        members = [index for index, span in enumerate(spans) if span.modality == name]
        crops = np.array([max(spans[index].duration_s, crop_s) for index in members])
        pools[name] = (np.array(members), _cumulated(crops))
    return names, _cumulated(shares), pools


def _cumulated(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares up to and with each, rounded as in `Generator.choice`."""
    shares = weights / weights.sum()
    cumulated = shares.cumsum()
    return cumulated / cumulated[-1]


def _drawn(cumulated: NDArray[np.float64], random: np.random.Generator) -> int:
    """Draw as `random.choice(len(shares), p=shares)` does, without its pass over all shares."""
    return int(cumulated.searchsorted(random.random(), side="right"))


def _as_int16(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    return np.rint(np.clip(samples, -1, 1) * 32767).astype(np.int16)


def _as_float32(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    return samples.astype(np.float32) * np.float32(1 / 32767)
