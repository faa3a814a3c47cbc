"""Parts of synthesis: noise, filters, decaying modes, rooms, levels; waves are `samples`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import signal

Wave = npt.NDArray[np.float64]
Generator = np.random.Generator

SAMPLE_RATE = 44_100
"""Sample rate of sounds and music, Hz."""


def samples(duration_s: float, sample_rate: int = SAMPLE_RATE) -> int:
    """Whole samples in a duration."""
    return round(duration_s * sample_rate)


def times(num_samples: int, sample_rate: int = SAMPLE_RATE) -> Wave:
    """Seconds of each sample, from 0."""
    return np.arange(num_samples) / sample_rate


def noise(rng: Generator, num_samples: int, slope_db: float = 0.0) -> Wave:
    """Gaussian noise of unit variance.

    Args:
        rng: Source of the noise.
        num_samples: Length.
        slope_db: Level per octave: 0 white, -3 pink, -6 brown; flat below 20 Hz.
    """
    white = rng.standard_normal(num_samples)
    if slope_db == 0 or num_samples == 0:
        return white
    size = int(2 ** np.ceil(np.log2(max(num_samples, 2))))
    spectrum = np.fft.rfft(white, size)
    frequency = np.maximum(np.fft.rfftfreq(size, 1 / SAMPLE_RATE), 20.0)
    shaped = np.fft.irfft(spectrum * (frequency / 1000) ** (slope_db / 6.0206), size)[:num_samples]
    return shaped / (shaped.std() + 1e-12)


def band(
    wave: Wave,
    low_hz: float | None = None,
    high_hz: float | None = None,
    order: int = 2,
    sample_rate: int = SAMPLE_RATE,
) -> Wave:
    """Butterworth high-pass, low-pass or band-pass; None leaves an edge open."""
    return signal.sosfilt(_band(low_hz, high_hz, order, sample_rate), wave)


@lru_cache(maxsize=256)
def _band(low_hz: float | None, high_hz: float | None, order: int, sample_rate: int) -> Wave:
    limit = 0.49 * sample_rate
    if high_hz is None:
        return signal.butter(order, low_hz, "highpass", fs=sample_rate, output="sos")
    if low_hz is None:
        return signal.butter(order, min(high_hz, limit), fs=sample_rate, output="sos")
    edges = (low_hz, min(high_hz, limit))
    return signal.butter(order, edges, "bandpass", fs=sample_rate, output="sos")


def resonate(wave: Wave, frequencies: Sequence[float], bandwidths: Sequence[float]) -> Wave:
    """Parallel resonators of unit peak gain: formants and bodies.

    Args:
        wave: Excitation.
        frequencies: Centres, Hz.
        bandwidths: Widths at -3 dB, Hz, one per centre.
    """
    out = np.zeros_like(wave)
    for centre, width in zip(frequencies, bandwidths, strict=True):
        b, a = signal.iirpeak(min(centre, 0.45 * SAMPLE_RATE), centre / width, fs=SAMPLE_RATE)
        out += signal.lfilter(b, a, wave)
    return out


def modes(
    duration_s: float,
    frequencies: Sequence[float] | Wave,
    decays_s: Sequence[float] | Wave,
    gains: Sequence[float] | Wave,
    rng: Generator | None = None,
) -> Wave:
    """Sum of decaying sinusoids: struck wood, metal, glass.

    Args:
        duration_s: Length.
        frequencies: Hz.
        decays_s: Time to fall by 60 dB, one per mode.
        gains: Amplitudes.
        rng: Draws the phases; None starts all at sine phase.
    """
    time = times(samples(duration_s))
    out = np.zeros_like(time)
    for frequency, decay, gain in zip(frequencies, decays_s, gains, strict=True):
        if frequency >= 0.47 * SAMPLE_RATE:
            continue
        stop = min(len(time), samples(1.3 * decay) + 1)
        phase = 0.0 if rng is None else rng.uniform(0, 2 * np.pi)
        part = time[:stop]
        out[:stop] += (
            gain * np.exp(-6.908 * part / decay) * np.sin(2 * np.pi * frequency * part + phase)
        )
    return out


def oscillate(frequency_hz: Wave, harmonics: Sequence[float] | Wave = (1.0,)) -> Wave:
    """Harmonic tone along a frequency curve; partials beyond the Nyquist rate are left out.

    Args:
        frequency_hz: Fundamental at each sample.
        harmonics: Amplitude of the 1st, 2nd, ... partial.
    """
    phase = 2 * np.pi * np.cumsum(frequency_hz) / SAMPLE_RATE
    top = float(frequency_hz.max()) if len(frequency_hz) else 0.0
    out = np.zeros_like(frequency_hz)
    for number, gain in enumerate(harmonics, start=1):
        if number * top < 0.47 * SAMPLE_RATE and gain != 0:
            out += gain * np.sin(number * phase)
    return out


def wander(rng: Generator, num_samples: int, rate_hz: float) -> Wave:
    """Slow random curve in about [-1, 1] that turns about `rate_hz` times a second."""
    knots = max(4, int(np.ceil(num_samples / SAMPLE_RATE * rate_hz)) + 3)
    values = rng.uniform(-1, 1, knots)
    curve = signal.resample_poly(values, 32, 1, padtype="edge")
    position = np.linspace(0, (len(curve) - 1) * (knots - 2) / knots, num_samples)
    return np.clip(np.interp(position, np.arange(len(curve)), curve), -1, 1)


def curve(num_samples: int, points: Sequence[tuple[float, float]]) -> Wave:
    """Straight lines through (share of the length, value) points."""
    shares, values = zip(*points, strict=True)
    return np.interp(np.linspace(0, 1, num_samples), shares, values)


def strike(num_samples: int, attack_s: float, decay_s: float) -> Wave:
    """Envelope of a blow: linear attack, then exponential fall by 60 dB in `decay_s`."""
    time = times(num_samples)
    return np.minimum(time / max(attack_s, 1e-4), 1.0) * np.exp(-6.908 * time / decay_s)


def fade(wave: Wave, in_s: float, out_s: float, sample_rate: int = SAMPLE_RATE) -> Wave:
    """Raised-cosine fades at both ends, so that no clip begins or ends with a click."""
    out = wave.copy()
    for length, edge in ((in_s, slice(None, None)), (out_s, slice(None, None, -1))):
        count = min(len(out), samples(length, sample_rate))
        if count:
            out[edge][:count] *= 0.5 - 0.5 * np.cos(np.pi * np.arange(count) / count)
    return out


def add(into: Wave, wave: Wave, start_s: float, gain: float = 1.0) -> None:
    """Mix a wave into a longer one in place; what lies beyond the end is cut."""
    start = samples(start_s)
    stop = min(len(into), start + len(wave))
    if stop > start:
        into[start:stop] += gain * wave[: stop - start]


def scatter(
    rng: Generator, num_samples: int, rate_hz: float | Wave, kernels: Sequence[Wave], spread: float
) -> Wave:
    """Random grains: Poisson impulses of log-normal size, each through one of some kernels.

    Args:
        rng: Draws times and sizes.
        num_samples: Length.
        rate_hz: Grains a second, constant or at each sample.
        kernels: What a grain may sound like.
        spread: Standard deviation of the log amplitude.
    """
    out = np.zeros(num_samples)
    share = np.broadcast_to(np.asarray(rate_hz) / SAMPLE_RATE / len(kernels), num_samples)
    for kernel in kernels:
        hits = (rng.random(num_samples) < share).astype(np.float64)
        index = np.flatnonzero(hits)
        hits[index] = np.exp(spread * rng.standard_normal(len(index))) * rng.choice(
            (-1.0, 1.0), len(index)
        )
        out += signal.oaconvolve(hits, kernel)[:num_samples]
    return out


def room(
    wave: Wave, rng: Generator, decay_s: float, wet: float, sample_rate: int = SAMPLE_RATE
) -> Wave:
    """A room around a wave: early reflections and a darkening tail; the length is kept.

    Args:
        wave: Dry signal.
        rng: Draws the room.
        decay_s: Reverberation time, 60 dB.
        wet: Level of the reverberation relative to the dry sound.
    """
    length = samples(min(decay_s, 2.5), sample_rate)
    time = times(length, sample_rate)
    tail = rng.standard_normal(length) * np.exp(-6.908 * time / decay_s)
    dark = band(tail, None, 2500.0, 1, sample_rate)
    mix = np.minimum(time / (0.5 * decay_s), 1.0)
    tail = (1 - mix) * tail + mix * dark * 2
    tail[: samples(0.004, sample_rate)] = 0
    for _ in range(5):
        tail[samples(rng.uniform(0.004, 0.03), sample_rate)] += rng.choice((-1, 1)) * 6
    tail /= np.sqrt((tail**2).sum()) + 1e-12
    return wave + wet * signal.oaconvolve(wave, tail)[: len(wave)]


def far_away(wave: Wave, rng: Generator) -> Wave:
    """The wave from a distance: duller, softer, with more of its surroundings."""
    dull = band(wave, 60.0, float(rng.choice((1800.0, 2400.0, 3200.0))), 1)
    return 0.35 * room(dull, rng, float(rng.uniform(0.8, 1.6)), 0.7)


def rms(wave: Wave) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(wave)))) if wave.size else 0.0


def to_level(wave: Wave, level_dbfs: float, peak_dbfs: float = -1.0) -> Wave:
    """Scale to a root mean square level, held back so that the peak stays below a limit.

    Args:
        wave: `samples` or `channels samples`.
        level_dbfs: Wanted level where the wave is active: in the pieces of 1,024 samples that are
            at most 20 dB below the loudest.
        peak_dbfs: Limit of the peak.
    """
    loudest = np.abs(wave).max()
    if loudest == 0:
        return wave
    power = np.square(np.atleast_2d(wave)).mean(axis=0)
    pieces = power[: len(power) // 1024 * 1024].reshape(-1, 1024).mean(axis=1)
    if not len(pieces):
        pieces = power
    active = np.sqrt(pieces[pieces >= 0.01 * pieces.max()].mean())
    gain = 10 ** (level_dbfs / 20) / (active + 1e-12)
    return wave * min(gain, 10 ** (peak_dbfs / 20) / loudest)


def spread_stereo(wave: Wave, rng: Generator) -> Wave:
    """Two channels of a diffuse sound; their mean is the wave itself.

    The difference of the channels has the wave's spectrum with phases loosened within 12 ms.
    """
    length = samples(0.012)
    kernel = rng.standard_normal(length) * np.exp(-5 * np.arange(length) / length)
    spectrum = np.fft.rfft(kernel, 4 * length)
    loosen = np.fft.irfft(spectrum / (np.abs(spectrum) + 1e-9))
    side = 0.7 * signal.oaconvolve(wave, loosen)[: len(wave)]
    return np.stack([wave + side, wave - side])


def pan(wave: Wave, position: float) -> Wave:
    """Two channels with constant power; position -1 is left, 1 right."""
    angle = (position + 1) * np.pi / 4
    return np.stack([np.cos(angle) * wave, np.sin(angle) * wave])
