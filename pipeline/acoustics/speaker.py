"""Speaker embeddings: whose voice it is, as one vector.

The built-in embedding needs no download. It describes vocal tract, voice and recording by
statistics of the cepstrum, the long-term spectrum and the pitch, each scaled by how much it varies
inside one speaker. A published speaker encoder fits the same `SpeakerEncoder` interface.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.acoustics.attributes import mel_bands
from pipeline.acoustics.pitch import PitchRange, pitch_track
from pipeline.audio.files import resample

SPEAKER_DIM = 192
"""Width of an embedding."""
_RATE = 16_000
_SIZE, _HOP = 512, 160
_NUM_BANDS = 40
_HIGHEST_HZ = 7600.0
_NUM_CEPSTRA = 24
VOICE_PITCH = PitchRange(60.0, 420.0)
"""Range of frequencies in which the pitch of a voice is searched."""
_NUM_PITCH_BINS = 32
_BELOW_LOUDEST_DB = 35.0
_SCALE_FILE = "speaker_scale.json"


class SpeakerEncoder(Protocol):
    """A waveform to a vector of unit length; close vectors are close voices.

    Attributes:
        name: Name in the card, with the digest of the weights if there are any.
        speaker_dim: Width of the vector.
    """

    name: str
    speaker_dim: int

    def embed(self, waveform: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
        """The voice in a waveform of `channels samples`."""


class StatisticsEncoder:
    """The built-in embedding."""

    name = "statistics-1"
    speaker_dim = SPEAKER_DIM

    def embed(self, waveform: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
        """The voice in a waveform; a zero vector if it is too quiet."""
        centre, scale = _centre_and_scale()
        statistics = voice_statistics(waveform, sample_rate)
        if statistics is None:
            return np.zeros(SPEAKER_DIM, np.float32)
        vector = np.clip((statistics - centre) / scale, -5, 5)
        return (vector / max(float(np.linalg.norm(vector)), 1e-9)).astype(np.float32)


def voice_statistics(waveform: NDArray[np.float32], sample_rate: int) -> NDArray[np.float64] | None:
    """The 192 statistics before scaling; None where nothing is loud enough.

    Mean, spread, 10th and 90th percentile and spread of the change of 24 cepstra (120), long-term
    spectrum in 40 bands (40), distribution of the pitch over 32 bins of a logarithmic axis (32).
    """
    mono = resample(waveform.mean(axis=0, keepdims=True), sample_rate, _RATE)[0]
    if len(mono) < _SIZE:
        mono = np.pad(mono, (0, _SIZE - len(mono)))
    frames = np.lib.stride_tricks.sliding_window_view(mono, _SIZE)[::_HOP]
    spectrum = np.fft.rfft(frames * np.hanning(_SIZE).astype(np.float32), axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    level = 10 * np.log10(power.sum(axis=1) + 1e-10)
    if level.max() < -60:
        return None
    loud = level >= level.max() - _BELOW_LOUDEST_DB
    bands = power @ mel_bands(np.fft.rfftfreq(_SIZE, 1 / _RATE), _NUM_BANDS, _HIGHEST_HZ)
    # The floor keeps empty bands of narrow recordings from deciding everything.
    loudness = np.log(bands + 1e-5 * bands.max())
    cepstra = (loudness @ _cosines())[:, 1:]
    change = np.diff(cepstra, axis=0)[loud[1:]] if loud[1:].any() else np.zeros((1, _NUM_CEPSTRA))
    kept = cepstra[loud]
    long_term = np.log(bands[loud].mean(axis=0) + 1e-5 * bands.max())
    parts = [
        kept.mean(axis=0),
        kept.std(axis=0),
        *np.percentile(kept, [10, 90], axis=0),
        change.std(axis=0),
        long_term - long_term.mean(),
        _pitch_histogram(mono),
    ]
    return np.concatenate(parts).astype(np.float64)


def centre_and_scale(statistics: NDArray[np.float64]) -> dict[str, list[float]]:
    """The table that the built-in embedding is scaled by, out of several takes of many speakers.

    The shipped one is of four crops each of 123 recordings of read English by as many speakers
    (LibriSpeech, CC BY 4.0).

    Args:
        statistics: `speakers takes 192`.

    Returns:
        `centre`, the mean; `scale`, the deviation inside one speaker, so that what varies between
        takes of one voice counts little.
    """
    within = np.sqrt(statistics.var(axis=1, ddof=1).mean(axis=0))
    return {
        "centre": [float(f"{value:.4g}") for value in statistics.mean(axis=(0, 1))],
        "scale": [float(f"{value:.4g}") for value in np.maximum(within, 1e-3)],
    }


def _pitch_histogram(mono: NDArray[np.float32]) -> NDArray[np.float64]:
    track = pitch_track(mono[::2], _RATE // 2, VOICE_PITCH)
    voiced = track[track > 0]
    if len(voiced) < 3:
        return np.zeros(_NUM_PITCH_BINS)
    centres = np.linspace(np.log(VOICE_PITCH.low_hz), np.log(VOICE_PITCH.high_hz), _NUM_PITCH_BINS)
    width = centres[1] - centres[0]
    near = np.exp(-0.5 * ((np.log(voiced)[:, None] - centres) / (1.5 * width)) ** 2)
    share: NDArray[np.float64] = (near / near.sum(axis=1, keepdims=True)).mean(axis=0)
    return np.sqrt(share)


@cache
def _cosines() -> NDArray[np.float32]:
    band, order = np.arange(_NUM_BANDS) + 0.5, np.arange(_NUM_CEPSTRA + 1)
    table = np.sqrt(2 / _NUM_BANDS) * np.cos(np.pi * np.outer(band, order) / _NUM_BANDS)
    return table.astype(np.float32)


@cache
def _centre_and_scale() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    text = resources.files("pipeline.acoustics").joinpath(_SCALE_FILE).read_text(encoding="utf-8")
    values = json.loads(text)
    return np.array(values["centre"]), np.array(values["scale"])
