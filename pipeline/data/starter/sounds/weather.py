"""Weather, water and fire."""

from __future__ import annotations

import numpy as np

from pipeline.data.starter import dsp
from pipeline.data.starter.dsp import Generator
from pipeline.data.starter.sounds.take import (
    EVENT,
    TEXTURE,
    SoundClass,
    Take,
    onsets,
    pick_count,
    times_word,
)


def rain(rng: Generator, duration_s: float) -> Take:
    """Hiss of countless drops, and single drops in front of it."""
    count = dsp.samples(duration_s)
    clause, drops, hiss = (
        ("light rain patters", 90.0, 0.12),
        ("steady rain falls", 350.0, 0.5),
        ("heavy rain pours down", 900.0, 1.4),
    )[int(rng.integers(3))]
    kernels = []
    for centre in np.geomspace(900, 9000, 12):
        length = dsp.samples(float(rng.uniform(0.003, 0.012)))
        splash = dsp.noise(rng, length) * np.exp(-7 * np.arange(length) / length)
        kernels.append(dsp.band(splash, centre / 1.5, centre * 1.5, 1))
    near = dsp.scatter(rng, count, drops, kernels, 0.9)
    far = dsp.band(dsp.noise(rng, count, -2.0), 500.0, 12000.0, 1)
    swell = 1 + 0.15 * dsp.wander(rng, count, 0.7)
    return Take(swell * (0.6 * near + hiss * far), clause)


def wind(rng: Generator, duration_s: float) -> Take:
    """Noise whose colour and strength follow gusts; strong wind whistles."""
    count = dsp.samples(duration_s)
    is_strong = rng.random() < 0.5
    gust = 0.5 + 0.5 * dsp.wander(rng, count, float(rng.uniform(0.4, 0.9)))
    centre = (250 + 650 * gust) * (1.3 if is_strong else 0.7)
    source = dsp.noise(rng, count)
    out = 0.5 * dsp.band(dsp.noise(rng, count, -6.0), None, 300.0, 1)
    for band_hz in np.geomspace(120, 2400, 9):
        distance = np.log2(centre / band_hz)
        out += np.exp(-3 * distance**2) * dsp.band(source, band_hz / 1.3, band_hz * 1.3, 1) * 2
    if is_strong:
        whistle = dsp.noise(rng, count)
        low_hz = float(rng.uniform(450, 700))
        for step in range(4):
            pitch = low_hz * 1.25**step
            near = np.exp(-18 * (np.log2(centre / pitch / 0.9)) ** 2)
            out += 9 * near * dsp.resonate(whistle, [pitch], [18.0])
    clause = "strong wind howls" if is_strong else "gentle wind blows"
    return Take(out * (0.25 + gust**1.5), clause)


def waves(rng: Generator, duration_s: float) -> Take:
    """Breakers: a rising roar, a bright crash, a long hiss that runs back."""
    count = dsp.samples(duration_s)
    roar = dsp.band(dsp.noise(rng, count, -4.0), 40.0, 900.0, 1)
    hiss = dsp.band(dsp.noise(rng, count, -1.0), 900.0, 9000.0, 1)
    out = 0.12 * roar + 0.03 * hiss
    time = dsp.times(count)
    period = float(rng.uniform(2.0, 2.8))
    crash = float(rng.uniform(0.35, 0.6)) * min(period, duration_s)
    while crash < duration_s + 1:
        size = float(rng.uniform(0.7, 1.1))
        since = time - crash
        rise = np.exp(-np.maximum(-since, 0) / 0.45)
        out += size * roar * rise * np.exp(-np.maximum(since, 0) / 0.7)
        out += size * hiss * np.where(since < 0, rise**3, 1) * np.exp(-np.maximum(since, 0) / 1.1)
        crash += period * float(rng.uniform(0.85, 1.15))
    return Take(out, "ocean waves roll onto the shore")


def thunder(rng: Generator, duration_s: float) -> Take:
    """One stroke: a crack if near, then a rumble that comes back in waves and dies away."""
    count = dsp.samples(duration_s)
    time = dsp.times(count)
    is_near = rng.random() < 0.5
    begin = float(rng.uniform(0.05, 0.3))
    rumble = dsp.band(dsp.noise(rng, count, -6.0), 25.0, 140.0, 1)
    growl = dsp.band(dsp.noise(rng, count, -3.0), 120.0, 600.0, 1)
    envelope = np.zeros(count)
    for bump in range(9):
        at = begin + (0 if bump == 0 else rng.uniform(0, 0.55 * duration_s))
        since = np.maximum(time - at, 0)
        size = float(rng.uniform(0.4, 1.0)) * np.exp(-0.5 * (at - begin))
        envelope += size * np.minimum(since / 0.08, 1) * np.exp(-since / rng.uniform(0.4, 0.9))
    out = envelope * (2.0 * rumble + 0.35 * np.exp(-time / 1.5) * growl)
    if is_near:
        crack = dsp.band(dsp.noise(rng, count, -2.0), 200.0, 7000.0, 1)
        ragged = 0.4 + 0.6 * np.abs(dsp.wander(rng, count, 30.0))
        since = np.maximum(time - begin, 0)
        out += 2.2 * crack * ragged * (time > begin) * np.exp(-since / 0.16)
    return Take(out, "thunder cracks and rolls" if is_near else "thunder rumbles")


def fire(rng: Generator, duration_s: float) -> Take:
    """A low roar and crackles of every size, in bursts."""
    count = dsp.samples(duration_s)
    roar = dsp.band(dsp.noise(rng, count, -5.0), 40.0, 400.0, 1)
    roar *= 0.6 + 0.3 * dsp.wander(rng, count, 3.0)
    burst = np.clip(dsp.wander(rng, count, 4.0), 0, 1)
    kernels = []
    for centre in rng.uniform(900, 7000, 10):
        length = dsp.samples(float(rng.uniform(0.002, 0.008)))
        snap = dsp.noise(rng, length) * np.exp(-6 * np.arange(length) / length)
        kernels.append(dsp.band(snap, centre / 1.6, centre * 1.6, 1) * 2)
    crackle = dsp.scatter(rng, count, 14 + 60 * burst**2, kernels, 1.1)
    pops = dsp.scatter(rng, count, 1.2, [dsp.modes(0.05, [180, 420], [0.05, 0.02], [2, 1])], 0.6)
    is_large = rng.random() < 0.4
    clause = "a large fire roars and crackles" if is_large else "a fire crackles"
    return Take((0.5 if is_large else 0.12) * roar + crackle + pops, clause)


def stream(rng: Generator, duration_s: float) -> Take:
    """Bubbles: short sines that rise as they shrink, over a soft rush."""
    count = dsp.samples(duration_s)
    kernels = []
    for _ in range(24):
        length = dsp.samples(float(rng.uniform(0.02, 0.07)))
        pitch = float(np.exp(rng.uniform(np.log(350), np.log(2400))))
        glide = dsp.curve(length, [(0, pitch), (1, pitch * rng.uniform(1.1, 1.5))])
        kernels.append(dsp.oscillate(glide) * dsp.strike(length, 0.003, length / dsp.SAMPLE_RATE))
    bubbles = dsp.scatter(rng, count, 90 * (1 + 0.5 * dsp.wander(rng, count, 2.0)), kernels, 0.7)
    rush = dsp.band(dsp.noise(rng, count, -3.0), 300.0, 5000.0, 1)
    return Take(bubbles + 0.12 * rush, "a stream babbles")


def water_drops(rng: Generator, duration_s: float) -> Take:
    """Single drops into water, in a hollow place."""
    number = pick_count(rng, duration_s, 0.15, 0.35, most=6)
    out = np.zeros(dsp.samples(duration_s))
    for start in onsets(rng, duration_s - 0.3, [0.15] * number, 0.35):
        length = dsp.samples(0.12)
        pitch = float(rng.uniform(700, 1500))
        glide = dsp.curve(length, [(0, pitch), (0.3, pitch * 1.1), (1, pitch * 1.9)])
        dsp.add(out, dsp.oscillate(glide) * dsp.strike(length, 0.002, 0.09), start + 0.012)
        dsp.add(out, dsp.modes(0.02, [3200, 5100], [0.01, 0.006], [0.4, 0.3]), start)
    out = dsp.room(out, rng, float(rng.uniform(0.5, 1.0)), 0.35)
    return Take(out, f"water drips {times_word(number)}", number)


CLASSES = (
    SoundClass("rain", "rain", "rain", TEXTURE, rain, 1.5),
    SoundClass("wind", "wind", "wind", TEXTURE, wind, 2.0),
    SoundClass("sea_waves", "waves", "sea waves", TEXTURE, waves, 4.0),
    SoundClass("thunder", "thunder", "thunder", EVENT, thunder, 2.0),
    SoundClass("fire", "fire", "a crackling fire", TEXTURE, fire, 1.5),
    SoundClass("stream", "stream", "a stream", TEXTURE, stream, 1.5),
    SoundClass("water_drops", "drips", "dripping water", EVENT, water_drops, 1.0),
)
"""Weather, water and fire."""
