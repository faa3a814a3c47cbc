"""Figures of the signal itself: codec distances, level, silence, clipping, duration, drift."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from operator import itemgetter
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from model.config import MODALITIES
from pipeline.evaluation import distance, intervals, signal
from pipeline.evaluation.findings import FORMS, Evidence, Findings, Measure, Observed
from pipeline.evaluation.listening import Listening
from pipeline.evaluation.metric import Metric

SIGNAL = "signal"
"""Name under which the observations are stored."""
LEVEL_EVERY_S = 0.5
"""Step of the curves of the level, seconds."""
DRIFT_FROM_S = 3.0
"""Shortest audio whose drift is measured, seconds: each third then lasts a second."""
_CODEC_DISTANCES = (
    ("log_mel_l1", "codec: log-mel distance", "lower"),
    ("stft_distance", "codec: STFT distance", "lower"),
    ("si_sdr_db", "codec: SI-SDR, dB", "higher"),
)
_SDR_NOTE = "below 0 where a codec does not keep the phase, whatever it sounds like"
_FACTS = (
    ("silent_share", "silent share of the audio", ""),
    ("clipped_share", "clipped share of the samples", "lower"),
    ("level_dbfs", "level, dBFS", ""),
)
_DRIFTS = (
    ("level_db", "drift of the level, dB"),
    ("brightness_octaves", "drift of brightness, octaves"),
)
_DRIFT_NOTE = (
    f"absolute difference between the first and the last third, of audio of {DRIFT_FROM_S:g} s or "
    "more; recordings drift too, so compare columns"
)  # fmt: skip


@dataclass(frozen=True)
class Drift:
    """Change from the first to the last third of a waveform.

    Attributes:
        level_db: Change of the RMS level, dB.
        brightness_octaves: Change of the spectral centroid, octaves.
    """

    level_db: float
    brightness_octaves: float


class SignalMetric(Metric):
    """Level, silence, clipping, duration and drift of each form, and distances of the codec."""

    name = SIGNAL
    version = "2"

    def observe(self, item: Listening, form: str) -> dict[str, Any]:
        """Facts and drift of a waveform; distances to the recording for its reconstruction."""
        waveform, rate = item.form(form), item.sample_rate
        found: dict[str, Any] = asdict(signal.examine(waveform, rate))
        measured = drift(waveform, rate)
        found["drift"] = None if measured is None else asdict(measured)
        found["levels_dbfs"] = levels_dbfs(waveform, rate)
        if form == "reconstructed":
            found["log_mel_l1"] = distance.log_mel_l1(waveform, item.real, rate)
            found["stft_distance"] = distance.stft_distance(waveform, item.real)
            found["si_sdr_db"] = distance.si_sdr_db(waveform, item.real)
        return found

    def summarise(self, evidence: Evidence) -> Findings:
        """Figures of each modality; what was not generated has no level or duration."""
        found = Findings()
        for modality in MODALITIES:
            clips = evidence.seen_by(SIGNAL, modality)
            if not clips:
                continue
            for key, name, better in _CODEC_DISTANCES:
                values = _values(clips, "reconstructed", itemgetter(key))
                note = _SDR_NOTE if key == "si_sdr_db" else ""
                found.add(modality, name, better, {"reconstructed": values}, note)
            for key, name, better in _FACTS:
                by_form = {f: _values(clips, f, itemgetter(key)) for f in FORMS}
                found.add(modality, name, better, by_form)
            found.extend(_durations(modality, clips))
            found.extend(_drifts(modality, clips))
            found.curves |= _level_curves(modality, clips)
        return found


def drift(waveform: Tensor, sample_rate: int) -> Drift | None:
    """Drift of a waveform; None if it is shorter than 3 s or a third of it is silent.

    Args:
        waveform: `channels samples`.
        sample_rate: Hz.
    """
    third = waveform.shape[-1] // 3
    if waveform.shape[-1] < DRIFT_FROM_S * sample_rate:
        return None
    mono = waveform.float().mean(0)
    first, last = mono[:third], mono[-third:]
    levels = [float(part.square().mean().clamp_min(1e-12).log10()) * 10 for part in (first, last)]
    if min(levels) < signal.SILENCE_DBFS:
        return None
    change = _centroid_hz(last, sample_rate).log2() - _centroid_hz(first, sample_rate).log2()
    return Drift(levels[1] - levels[0], float(change))


def levels_dbfs(waveform: Tensor, sample_rate: int) -> list[float]:
    """RMS level of every whole half second, dBFS, at least that of silence.

    Args:
        waveform: `channels samples`.
        sample_rate: Hz.
    """
    size = max(1, round(LEVEL_EVERY_S * sample_rate))
    mono, floor = waveform.float().mean(0), 10 ** (signal.SILENCE_DBFS / 10)
    starts = range(0, mono.shape[-1] - size + 1, size)
    powers = (mono[start : start + size].square().mean() for start in starts)
    return [float(power.clamp_min(floor).log10()) * 10 for power in powers]


def _level_curves(
    modality: str, clips: Sequence[Observed]
) -> dict[str, dict[str, list[tuple[float, float, int]]]]:
    """Mean level over the clips that last so long, while there are enough of them."""
    curves = {}
    for form in FORMS:
        levels = [o.of(SIGNAL, form)["levels_dbfs"] for o in _made(clips, form)]
        points = []
        for number in range(max(map(len, levels), default=0)):
            there = [values[number] for values in levels if len(values) > number]
            if len(there) < intervals.MIN_CLIPS:
                break
            points.append(((number + 0.5) * LEVEL_EVERY_S, fmean(there), len(there)))
        if len(points) > 1:
            curves[form] = points
    return {f"Level of {modality} against time": curves} if curves else {}


def _centroid_hz(mono: Tensor, sample_rate: int) -> Tensor:
    """Mean frequency, weighted by power."""
    power = torch.fft.rfft(mono).abs().square()
    frequencies_hz = torch.linspace(0, sample_rate / 2, len(power))
    return ((power * frequencies_hz).sum() / power.sum()).clamp_min(1.0)


def _values(
    clips: Sequence[Observed], form: str, value: Callable[[dict[str, Any]], float]
) -> dict[str, float]:
    return {o.clip.clip_id: value(o.of(SIGNAL, form)) for o in _made(clips, form)}


def _made(clips: Sequence[Observed], form: str) -> list[Observed]:
    return [o for o in clips if form != "generated" or o.failure is None]


def _durations(modality: str, clips: Sequence[Observed]) -> Findings:
    """Duration of generated audio beside that of the recording."""
    found = Findings()
    generated = _values(clips, "generated", itemgetter("duration_s"))
    wanted = {o.clip.clip_id: o.clip.duration_s for o in clips}
    ratios = {name: (value, wanted[name]) for name, value in generated.items()}
    found.measures.append(Measure(
        modality, "duration relative to the recordings", "", {"generated": ratios},
        "1 is the total duration of the recordings",
    ))  # fmt: skip
    errors = {name: abs(value / wanted[name] - 1) for name, value in generated.items()}
    found.add(
        modality, "duration error", "lower", {"generated": errors},
        "mean of |generated / recording - 1| over clips",
    )  # fmt: skip
    return found


def _drifts(modality: str, clips: Sequence[Observed]) -> Findings:
    found = Findings()
    for key, name in _DRIFTS:
        forms = {
            form: {
                o.clip.clip_id: abs(seen[key])
                for o in _made(clips, form)
                if (seen := o.of(SIGNAL, form)["drift"]) is not None
            }
            for form in FORMS
        }
        if forms["real"] and forms["generated"]:
            found.add(modality, name, "lower", forms, _DRIFT_NOTE)
    return found
