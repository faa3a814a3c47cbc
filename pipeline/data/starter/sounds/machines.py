"""Machines and signals: engines, rotors, sirens, horns, alarms."""

from __future__ import annotations

import numpy as np
from scipy import signal

from pipeline.data.starter import dsp
from pipeline.data.starter.dsp import Generator, Wave
from pipeline.data.starter.sounds.take import (
    EVENT,
    TEXTURE,
    SoundClass,
    Take,
    onsets,
    pick_count,
    times_word,
)


def engine(rng: Generator, duration_s: float) -> Take:
    """Firing pulses through an exhaust; speed follows the throttle."""
    count = dsp.samples(duration_s)
    idle = float(rng.uniform(24, 34))
    manner = int(rng.integers(3))
    clause = ("an engine idles", "an engine revs up", "an engine runs fast")[manner]
    speed = (
        np.full(count, idle),
        idle * dsp.curve(count, [(0, 1), (0.25, 1), (0.6, 3.2), (0.8, 3.4), (1, 2.4)]),
        np.full(count, idle * 3),
    )[manner]
    speed = speed * (1 + 0.015 * dsp.wander(rng, count, 8.0))
    cycle = np.cumsum(speed) / dsp.SAMPLE_RATE
    firing = np.diff(np.floor(cycle), prepend=0) * rng.uniform(0.75, 1.25, count)
    uneven = 1 + 0.25 * (np.floor(cycle) % 2)
    body = float(rng.uniform(70, 110))
    pulses = dsp.resonate(
        firing * uneven, [body, 2.3 * body, 5.1 * body, 11 * body], [40, 90, 200, 500]
    )
    load = np.exp(-4 * (cycle % 1))
    rattle = dsp.band(dsp.noise(rng, count, -4.0), 200.0, 2500.0, 1) * load
    scale = pulses.std() / (rattle.std() + 1e-9)
    return Take((pulses + 0.12 * scale * rattle) * (speed / idle) ** 0.3, clause)


def helicopter(rng: Generator, duration_s: float) -> Take:
    """Blade slaps, the rush of air between them, and a turbine."""
    count = dsp.samples(duration_s)
    time = dsp.times(count)
    blades = float(rng.uniform(10, 14))
    phase = (time * blades) % 1
    slap = np.exp(-9 * phase) * np.minimum(phase / 0.03, 1)
    thump = dsp.band(dsp.noise(rng, count, -3.0), 50.0, 350.0, 1) * slap
    chop = dsp.band(dsp.noise(rng, count, -1.0), 300.0, 3000.0, 1) * slap**1.5
    wash = dsp.band(dsp.noise(rng, count, -4.0), 100.0, 2500.0, 1) * 0.12
    whine_hz = float(rng.uniform(1300, 2200))
    whine = dsp.oscillate(np.full(count, whine_hz), (1, 0.4, 0.2)) * 0.02
    flies_by = rng.random() < 0.4
    level = dsp.curve(count, [(0, 0.25), (0.5, 1), (1, 0.25)]) if flies_by else np.ones(count)
    clause = "a helicopter flies past" if flies_by else "a helicopter hovers"
    return Take((1.3 * thump + 0.5 * chop + wash + whine) * level, clause)


def siren(rng: Generator, duration_s: float) -> Take:
    """An emergency siren: wail, yelp, or two tones."""
    count = dsp.samples(duration_s)
    time = dsp.times(count)
    manner = int(rng.integers(3))
    clause = ("a siren wails", "a siren yelps rapidly", "a two-tone siren sounds")[manner]
    if manner == 2:
        low = float(rng.uniform(420, 470))
        pitch = np.where((time / 0.55) % 2 < 1, low, low * 4 / 3)
        pitch = signal.lfilter([0.002], [1, -0.998], pitch - pitch[0]) + pitch[0]
    else:
        rate = float(rng.uniform(0.25, 0.4)) if manner == 0 else float(rng.uniform(3.0, 4.0))
        sweep = 0.5 - 0.5 * np.cos(2 * np.pi * (rate * time + rng.random()))
        pitch = 600 * (1350 / 600) ** sweep
    tone = dsp.oscillate(pitch, (1, 0.5, 0.35, 0.2, 0.12, 0.08))
    return Take(dsp.room(dsp.band(tone, 300.0, 5000.0, 1), rng, 1.2, 0.2), clause)


def _horn(rng: Generator, pitches: Wave, length_s: float) -> Wave:
    count = dsp.samples(length_s)
    out = np.zeros(count)
    for pitch in pitches:
        bend = dsp.curve(count, [(0, 0.97), (0.06, 1), (0.94, 1), (1, 0.97)])
        harmonics = 1 / np.arange(1, 15) ** 0.9
        out += dsp.oscillate(pitch * bend * rng.uniform(0.998, 1.002), harmonics)
    out += 0.05 * len(pitches) * dsp.band(dsp.noise(rng, count), 500.0, 5000.0, 1)
    return dsp.fade(out, 0.05, 0.08)


def train_horn(rng: Generator, duration_s: float) -> Take:
    """Long blasts of a chord of air horns, heard outdoors."""
    length = float(rng.uniform(0.7, 1.2))
    number = pick_count(rng, duration_s - 0.4, length, 0.3, most=3)
    root = float(rng.uniform(285, 330))
    chord = root * np.array([1, 1.189, 1.335, 1.587, 2.0])
    out = np.zeros(dsp.samples(duration_s))
    for start in onsets(rng, duration_s - 0.4, [length] * number, 0.3):
        dsp.add(out, _horn(rng, chord, length), start)
    return Take(dsp.room(out, rng, 1.8, 0.3), f"a train horn blows {times_word(number)}", number)


def car_horn(rng: Generator, duration_s: float) -> Take:
    """Short honks of two tones."""
    length = float(rng.uniform(0.2, 0.45))
    number = pick_count(rng, duration_s, length, 0.2, most=4)
    chord = float(rng.uniform(390, 440)) * np.array([1, 1.26])
    out = np.zeros(dsp.samples(duration_s))
    for start in onsets(rng, duration_s, [length] * number, 0.2):
        dsp.add(out, _horn(rng, chord, length), start)
    return Take(dsp.room(out, rng, 0.5, 0.15), f"a car horn honks {times_word(number)}", number)


def alarm_clock(rng: Generator, duration_s: float) -> Take:
    """Groups of four electronic beeps."""
    count = dsp.samples(duration_s)
    time = dsp.times(count)
    pitch = float(rng.uniform(1900, 2300))
    within = time % 1.0
    gate = ((within % 0.125) < 0.065) & (within < 0.5)
    beep = dsp.oscillate(np.full(count, pitch), (1, 0, 0.35, 0, 0.2))
    smooth = dsp.band(gate.astype(np.float64), None, 400.0, 1)
    return Take(beep * smooth, "an alarm clock beeps")


def telephone(rng: Generator, duration_s: float) -> Take:
    """Rings of a bell with a clapper."""
    length = float(rng.uniform(0.8, 1.2))
    number = pick_count(rng, duration_s - 0.3, length, 0.5, most=3)
    root, clapper = float(rng.uniform(900, 1300)), float(rng.uniform(18, 23))
    out = np.zeros(dsp.samples(duration_s))
    gongs = [
        dsp.modes(
            0.5,
            root * scale * np.array([1, 2.02, 2.93, 4.2]),
            [0.5, 0.4, 0.3, 0.2],
            [1, 0.7, 0.5, 0.3],
        )
        for scale in (1.0, 1.22)
    ]
    for start in onsets(rng, duration_s - 0.4, [length] * number, 0.5):
        for stroke in range(int(length * clapper)):
            dsp.add(out, gongs[stroke % 2], start + stroke / clapper)
    return Take(out, f"a telephone rings {times_word(number)}", number)


CLASSES = (
    SoundClass("engine", "engine", "an engine", TEXTURE, engine, 2.0),
    SoundClass("helicopter", "helicopter", "a helicopter", TEXTURE, helicopter, 2.0),
    SoundClass("siren", "siren", "a siren", TEXTURE, siren, 2.0, can_be_far=True),
    SoundClass("train_horn", "train horn", "a train horn", EVENT, train_horn, 2.0, can_be_far=True),
    SoundClass("car_horn", "car horn", "a car horn", EVENT, car_horn, 1.0, can_be_far=True),
    SoundClass("alarm_clock", "alarm clock", "an alarm clock", TEXTURE, alarm_clock, 1.2),
    SoundClass("telephone", "telephone", "a ringing telephone", EVENT, telephone, 1.5),
)
"""Machines and signals."""
