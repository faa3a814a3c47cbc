"""What can be measured of any clip: level, pitch, tempo, key, brightness, noise, pauses, decay.

Every name carries its unit. What cannot be measured of a clip (the pitch of noise, the tempo of one
click) is absent, never zero. Numbers keep four significant digits.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.acoustics.decay import decay_time_s
from pipeline.acoustics.musical_key import estimate_key
from pipeline.acoustics.pitch import PitchRange, pitch_track
from pipeline.audio.files import resample

ATTRIBUTES_VERSION = 2
"""Version of the measurements. Another version measures all clips again."""

Array = NDArray[np.floating[Any]]

_HOP_S = 0.01
_WINDOW_S = 0.046
_NUM_BANDS = 40
_CHUNK_FRAMES = 1024
_SILENCE_DBFS = -100.0
_MIN_PAUSE_S = 0.2
_STATIONARY_DB = 10.0
_BANDWIDTH_BELOW_PEAK_DB = 60.0
_TONAL_RATE = 8000  # of pitch, key and decay, Hz
_TEMPO_PRIOR_BPM = 120.0
_TEMPO_RANGE_BPM = (40.0, 240.0)
_MIN_TEMPO_S = 4.0
_ONSET_RISE = 0.3  # mean over bands of the rise in one hop, nepers; noise alone stays below
PITCH_RANGES = {
    "speech": PitchRange(60.0, 420.0),
    "sound": PitchRange(60.0, 1000.0),
    "music": PitchRange(60.0, 1000.0),
}
"""Range of frequencies in which the pitch of each modality is searched, Hz."""


def measure(waveform: NDArray[np.float32], sample_rate: int, modality: str) -> dict[str, float]:
    """Measured attributes of a clip.

    Args:
        waveform: `channels samples` in [-1, 1].
        sample_rate: Rate of the waveform, Hz.
        modality: speech, sound or music.

    Returns:
        Always `duration_s`, `level_dbfs`, `peak_dbfs`; where it can be told also `active_s`,
        `noise_floor_dbfs`, `snr_db`, `pause_count`, `pause_share`, `dynamic_range_db`,
        `level_trend_db`, `brightness_hz`, `bandwidth_hz`, `onset_rate_hz`, `pitch_median_hz`,
        `pitch_low_hz`, `pitch_high_hz`, `pitch_range_semitones`, `voiced_share`, `tempo_bpm`,
        `beat_strength`, `stereo_width`, `decay_time_s`; of music also `key_number`, a place in
        `musical_key.KEY_NAMES`, and `key_confidence`.
    """
    values = {"duration_s": waveform.shape[1] / sample_rate}
    values |= _levels(waveform)
    if values["level_dbfs"] > _SILENCE_DBFS:
        mono = waveform.mean(axis=0)
        levels = _frame_levels(waveform, sample_rate)
        values |= _activity(levels)
        values |= _dynamics(levels)
        spectrum = _analyse(mono, sample_rate)
        values |= _colour(spectrum)
        values |= _rhythm(spectrum, with_tempo=modality != "speech")
        values |= _width(waveform)
        narrow = resample(mono[None], sample_rate, _TONAL_RATE)[0]
        values |= _pitch(narrow, modality, levels)
        values |= _decay(narrow)
        if modality == "music":
            values |= _key(narrow)
    return {name: _significant(value) for name, value in sorted(values.items())}


def measure_tempo_bpm(waveform: NDArray[np.float32], sample_rate: int) -> float | None:
    """Tempo of `channels samples`, beats per minute, as `measure` gives it; None without a beat."""
    if not np.any(waveform):
        return None
    rhythm = _rhythm(_analyse(waveform.mean(axis=0), sample_rate), with_tempo=True)
    return _significant(rhythm["tempo_bpm"]) if "tempo_bpm" in rhythm else None


def speaking_rate(transcript: str, active_s: float) -> float | None:
    """Syllables per second of active speech, estimated from the spelling; None without words.

    Groups of vowel letters count in alphabetic scripts, every character in Han, kana and hangul.
    """
    count = num_syllables(transcript)
    return _significant(count / active_s) if count and active_s > 0 else None


def num_syllables(transcript: str) -> int:
    """Syllables of a text, estimated from its spelling."""
    plain = unicodedata.normalize("NFC", transcript.lower())
    letters = [c for c in plain if c.isalnum()]
    whole = sum(1 for c in letters if _is_syllabic(c))
    latin = unicodedata.normalize("NFD", plain)
    words = re.findall(r"[a-z']+", re.sub(r"[\u0300-\u036f]", "", latin))
    spelled = sum(max(1, len(re.findall(r"[aeiouy]+", re.sub(r"e$", "", w)))) for w in words)
    other = sum(1 for c in letters if not _is_syllabic(c) and not _is_latin(c))
    return whole + spelled + round(other / 2.4)


def _is_syllabic(character: str) -> bool:
    name = unicodedata.name(character, "")
    return character.isdigit() or name.startswith(("CJK", "HIRAGANA", "KATAKANA", "HANGUL"))


def _is_latin(character: str) -> bool:
    return unicodedata.name(character, "").startswith("LATIN")


def _levels(waveform: NDArray[np.float32]) -> dict[str, float]:
    power = float(np.mean(np.square(waveform, dtype=np.float64)))
    peak = float(np.abs(waveform).max())
    return {"level_dbfs": _db(power), "peak_dbfs": _db(peak * peak)}


def _frame_levels(waveform: NDArray[np.float32], sample_rate: int) -> Array:
    hop = max(1, round(sample_rate * _HOP_S))
    count = max(1, waveform.shape[1] // hop)
    padded = np.zeros((waveform.shape[0], count * hop), np.float32)
    usable = min(waveform.shape[1], count * hop)
    padded[:, :usable] = waveform[:, :usable]
    power = np.square(padded, dtype=np.float64).reshape(waveform.shape[0], count, hop)
    smooth = np.convolve(power.mean(axis=(0, 2)), np.ones(3) / 3, mode="same")
    return 10 * np.log10(np.maximum(smooth, 1e-10))


def _activity(levels: Array) -> dict[str, float]:
    loud, floor = np.percentile(levels, [95, 5])
    if loud - floor < _STATIONARY_DB:
        return {"active_s": len(levels) * _HOP_S, "noise_floor_dbfs": float(floor)}
    is_active = active_frames(levels)
    values = {"active_s": float(is_active.sum()) * _HOP_S}
    quiet = 10 ** (levels[~is_active] / 10)
    if len(quiet) >= max(5, 0.05 * len(levels)):
        noise = float(np.median(quiet))
        signal = float(np.mean(10 ** (levels[is_active] / 10)))
        values["noise_floor_dbfs"] = _db(noise)
        values["snr_db"] = min(90.0, _db(max(signal - noise, 1e-10)) - _db(noise))
    inside = np.flatnonzero(is_active)
    span = is_active[inside[0] : inside[-1] + 1]
    pauses = [n for n in _run_lengths(~span) if n * _HOP_S >= _MIN_PAUSE_S]
    values["pause_count"] = float(len(pauses))
    values["pause_share"] = sum(pauses) / len(span)
    return values


def active_frames(levels: Array) -> NDArray[np.bool_]:
    """Whether each frame is louder than the background; all are where the level hardly moves."""
    loud, floor = np.percentile(levels, [95, 5])
    if loud - floor < _STATIONARY_DB:
        return np.ones(len(levels), bool)
    active: NDArray[np.bool_] = levels >= max(floor + 0.35 * (loud - floor), loud - 40.0)
    return active


def _run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [int(n) for n in edges[1::2] - edges[::2]]


def _dynamics(levels: Array) -> dict[str, float]:
    values = {}
    power = 10 ** (levels / 10)
    size = round(0.4 / _HOP_S)
    if len(levels) >= 2 * size:
        coarse = np.convolve(power, np.ones(size) / size, mode="valid")
        high, low = np.percentile(coarse, [95, 10])
        values["dynamic_range_db"] = _db(float(high)) - _db(float(low))
    if len(levels) >= 6:
        third = len(levels) // 3
        values["level_trend_db"] = _db(float(power[-third:].mean())) - _db(
            float(power[:third].mean())
        )
    return values


@dataclass(frozen=True)
class _Spectrum:
    """Long-term power by frequency, and how much of every frame is new."""

    frequencies_hz: Array
    power: Array
    onset: Array
    duration_s: float


def _analyse(mono: NDArray[np.float32], sample_rate: int) -> _Spectrum:
    size = 2 ** max(5, round(math.log2(_WINDOW_S * sample_rate)))
    frequencies = np.fft.rfftfreq(size, 1 / sample_rate)
    bands = mel_bands(frequencies, _NUM_BANDS)
    hop = max(1, round(sample_rate * _HOP_S))
    total = np.zeros(len(frequencies))
    onset, last, first = [], None, 0
    # Frames that reach over an edge hold a step, which is no part of the sound's spectrum.
    inner = range(math.ceil(size / 2 / hop), (len(mono) - size // 2) // hop + 1)
    for power in _power_frames(mono, size, hop):
        begin, end = max(inner.start - first, 0), max(inner.stop - first, 0)
        total += power[begin:end].sum(axis=0, dtype=np.float64)
        first += len(power)
        loudness = np.log(power @ bands + 1e-8)
        before = loudness[:1] if last is None else last
        rise = np.diff(np.concatenate([before, loudness]), axis=0)
        onset.append(np.maximum(rise, 0.0).mean(axis=1))
        last = loudness[-1:]
    if not inner:
        total = next(_power_frames(mono, size, hop)).sum(axis=0, dtype=np.float64)
    return _Spectrum(
        frequencies, total, np.concatenate(onset).astype(np.float64), len(mono) / sample_rate
    )


def _power_frames(mono: NDArray[np.float32], size: int, hop: int) -> Iterator[NDArray[np.float32]]:
    window = np.hanning(size).astype(np.float32)
    padded = np.pad(mono, (size // 2, size // 2 + hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    for start in range(0, len(frames), _CHUNK_FRAMES):
        spectrum = np.fft.rfft(frames[start : start + _CHUNK_FRAMES] * window, axis=1)
        yield (spectrum.real**2 + spectrum.imag**2).astype(np.float32)


def mel_bands(frequencies_hz: Array, num_bands: int, high_hz: float = 0.0) -> NDArray[np.float32]:
    """Triangular bands, equally wide on the mel scale; one column each, `frequencies bands`."""
    top = high_hz or frequencies_hz[-1]
    mel = np.linspace(0, 2595 * np.log10(1 + top / 700), num_bands + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    rise = (frequencies_hz[:, None] - edges[:-2]) / np.diff(edges)[:-1]
    fall = (edges[2:] - frequencies_hz[:, None]) / np.diff(edges)[1:]
    return np.clip(np.minimum(rise, fall), 0, None).astype(np.float32)


def _colour(spectrum: _Spectrum) -> dict[str, float]:
    # Below 20 Hz there is nothing to hear, but often an offset.
    audible = spectrum.frequencies_hz >= 20
    frequencies, power = spectrum.frequencies_hz[audible], spectrum.power[audible]
    if power.sum() <= 0:
        return {}
    amplitude = np.sqrt(power)
    width = max(1, round(100 / (frequencies[1] - frequencies[0])))
    smooth = np.convolve(power, np.ones(width) / width, mode="same")
    limit = smooth.max() * 10 ** (-_BANDWIDTH_BELOW_PEAK_DB / 10)
    return {
        "brightness_hz": float((frequencies * amplitude).sum() / amplitude.sum()),
        "bandwidth_hz": float(frequencies[np.flatnonzero(smooth >= limit)[-1]]),
    }


def _rhythm(spectrum: _Spectrum, *, with_tempo: bool) -> dict[str, float]:
    onset = spectrum.onset
    if len(onset) < 20:
        return {}
    threshold = float(np.median(onset)) + _ONSET_RISE
    peaks = (onset[1:-1] > onset[:-2]) & (onset[1:-1] >= onset[2:]) & (onset[1:-1] > threshold)
    times = np.flatnonzero(peaks)
    apart = int((np.diff(times) > 5).sum()) + 1 if len(times) else 0
    values = {"onset_rate_hz": apart / spectrum.duration_s}
    if with_tempo and spectrum.duration_s >= _MIN_TEMPO_S and onset.std() > 1e-4:
        values |= _tempo(onset)
    return values


def _tempo(onset: Array) -> dict[str, float]:
    centred = onset - onset.mean()
    size = 2 ** math.ceil(math.log2(2 * len(centred)))
    correlation = np.fft.irfft(np.abs(np.fft.rfft(centred, size)) ** 2)[: len(centred)]
    correlation = correlation / np.arange(len(centred), 0, -1)
    correlation = np.convolve(correlation / correlation[0], [0.25, 0.5, 0.25], mode="same")
    low, high = (60 / (bpm * _HOP_S) for bpm in _TEMPO_RANGE_BPM[::-1])
    lags = np.arange(int(low), min(int(high), len(onset) // 2))
    if not len(lags):
        return {}
    distance = np.log2(60 / (lags * _HOP_S) / _TEMPO_PRIOR_BPM)
    lag = int(lags[np.argmax(correlation[lags] * np.exp(-0.5 * distance**2))])
    fine, multiple = float(lag), 4
    if multiple * lag + multiple < len(correlation) * 3 // 4:
        near = np.arange(multiple * lag - multiple, multiple * lag + multiple + 1)
        fine = float(near[np.argmax(correlation[near])]) / multiple
    # The smoothing above halves a one-frame peak.
    strength = float(np.clip(2 * correlation[lag], 0, 1))
    return {"tempo_bpm": 60 / (fine * _HOP_S), "beat_strength": strength}


def _pitch(narrow: NDArray[np.float32], modality: str, levels: Array) -> dict[str, float]:
    track = pitch_track(narrow, _TONAL_RATE, PITCH_RANGES[modality])
    if not len(track):
        return {}
    index = np.minimum(np.arange(len(track)) * len(levels) // len(track), len(levels) - 1)
    is_active = active_frames(levels)[index]
    voiced = track[is_active & (track > 0)]
    values = {"voiced_share": len(voiced) / max(1, int(is_active.sum()))}
    if len(voiced) >= 5 and values["voiced_share"] >= 0.1:
        low, median, high = (float(v) for v in np.percentile(voiced, [10, 50, 90]))
        values |= {
            "pitch_low_hz": low,
            "pitch_median_hz": median,
            "pitch_high_hz": high,
            "pitch_range_semitones": 12 * math.log2(high / low),
        }
    return values


def _decay(narrow: NDArray[np.float32]) -> dict[str, float]:
    found_s = decay_time_s(narrow, _TONAL_RATE)
    return {} if found_s is None else {"decay_time_s": found_s}


def _key(narrow: NDArray[np.float32]) -> dict[str, float]:
    key = estimate_key(narrow, _TONAL_RATE)
    if key is None:
        return {}
    return {"key_number": float(key.number), "key_confidence": key.confidence}


def _width(waveform: NDArray[np.float32]) -> dict[str, float]:
    if waveform.shape[0] != 2:
        return {}
    left, right = waveform.astype(np.float64)
    mid, side = ((left + right) ** 2).sum(), ((left - right) ** 2).sum()
    return {"stereo_width": float(side / (mid + side))}


def _db(power: float) -> float:
    return 10 * math.log10(max(power, 1e-10))


def _significant(value: float) -> float:
    return float(f"{value:.4g}")
