"""Things in and around a house, struck, broken or tapped; and people's hands and hearts."""

from __future__ import annotations

import numpy as np

from pipeline.data.starter import dsp
from pipeline.data.starter.dsp import Generator, Wave
from pipeline.data.starter.sounds.take import (
    EVENT,
    TEXTURE,
    SoundClass,
    Take,
    pick_count,
    times_word,
)


def _tap(rng: Generator, low_hz: float, high_hz: float, length_s: float) -> Wave:
    count = dsp.samples(length_s)
    return dsp.band(dsp.noise(rng, count) * dsp.strike(count, 0.0005, length_s), low_hz, high_hz, 1)


def clock_tick(rng: Generator, duration_s: float) -> Take:
    """Tick and tock: two bright clicks with a little case around them."""
    beats, word = ((1.0, "slowly"), (2.0, "steadily"), (4.0, "fast"))[int(rng.integers(3))]
    case = float(rng.uniform(1800, 2600))
    clicks = [
        dsp.modes(0.06, case * scale * np.array([1, 1.9, 3.1]), [0.03, 0.02, 0.01], [1, 0.8, 0.6])
        for scale in (1.0, 0.86)
    ]
    out = np.zeros(dsp.samples(duration_s))
    for beat in range(int((duration_s - 0.1) * beats) + 1):
        start = 0.08 + beat / beats
        dsp.add(out, clicks[beat % 2], start)
        dsp.add(out, _tap(rng, 2500.0, 9000.0, 0.006), start, 0.8)
    return Take(dsp.room(out, rng, 0.25, 0.15), f"a clock ticks {word}")


def door_knock(rng: Generator, duration_s: float) -> Take:
    """Knuckles on a wooden door, evenly spaced."""
    number = pick_count(rng, duration_s - 0.3, 0.1, 0.18, most=5)
    board = float(rng.uniform(130, 210))
    pace = float(rng.uniform(0.22, 0.34))
    begin = float(rng.uniform(0.05, 0.3))
    pace = min(pace, (duration_s - begin - 0.2) / number)
    out = np.zeros(dsp.samples(duration_s))
    for knock in range(number):
        ratios = np.array([1, 2.3, 3.9, 6.1, 9.5])
        wood = dsp.modes(
            0.2, board * ratios, [0.12, 0.09, 0.06, 0.04, 0.02], [1, 0.8, 0.6, 0.4, 0.3], rng
        )
        dsp.add(out, wood, begin + knock * pace, float(rng.uniform(0.8, 1)))
        dsp.add(out, _tap(rng, 500.0, 4000.0, 0.015), begin + knock * pace, 0.7)
    out = dsp.room(out, rng, 0.35, 0.2)
    return Take(out, f"someone knocks on a door {times_word(number)}", number)


def footsteps(rng: Generator, duration_s: float) -> Take:
    """Heel and toe on a floor, or crunching gravel, at a walking or running pace."""
    runs, gravel = rng.random() < 0.35, rng.random() < 0.5
    pace = float(rng.uniform(0.32, 0.38) if runs else rng.uniform(0.5, 0.65))
    out = np.zeros(dsp.samples(duration_s))
    start = 0.08
    while start < duration_s - 0.25:
        for delay, size in ((0.0, 1.0), (0.06 if runs else 0.11, 0.55)):
            at = start + delay
            if gravel:
                count = dsp.samples(0.14)
                grains = [_tap(rng, 1200.0, 9000.0, 0.004) for _ in range(6)]
                crunch = dsp.scatter(rng, count, 900.0, grains, 0.8)
                dsp.add(out, crunch * dsp.strike(count, 0.02, 0.16), at, size)
            else:
                dsp.add(
                    out, dsp.modes(0.1, [95, 210, 430], [0.09, 0.06, 0.03], [1, 0.7, 0.4]), at, size
                )
                dsp.add(out, _tap(rng, 900.0, 6000.0, 0.02), at, 0.7 * size)
        start += pace * float(rng.uniform(0.96, 1.04))
    how = "quick footsteps run" if runs else "steady footsteps walk"
    where = "on gravel" if gravel else "across a hard floor"
    out = dsp.room(out, rng, 0.3, 0.05 if gravel else 0.2)
    return Take(out, f"{how} {where}")


def bell(rng: Generator, duration_s: float) -> Take:
    """A cast bell: hum, prime, minor third, fifth, octave and their high company."""
    is_large = rng.random() < 0.6
    ring_s = 1.1 if is_large else 0.6
    number = pick_count(rng, duration_s - 0.4, ring_s, 0.1, most=4)
    prime = float(rng.uniform(220, 380) if is_large else rng.uniform(900, 1500))
    partials = prime * np.array([0.5, 1, 1.19, 1.5, 2, 2.52, 2.67, 3.01, 4.02, 5.4])
    decays = (6.0 if is_large else 2.0) * np.array([1.4, 1, 0.8, 0.6, 0.7, 0.4, 0.4, 0.3, 0.2, 0.1])
    gains = [0.5, 0.8, 0.7, 0.3, 1.0, 0.35, 0.3, 0.4, 0.3, 0.3]
    out = np.zeros(dsp.samples(duration_s))
    begin, pace = float(rng.uniform(0.05, 0.3)), ring_s * float(rng.uniform(1.0, 1.2))
    pace = min(pace, (duration_s - begin - 0.3) / number)
    for stroke in range(number):
        left = duration_s - begin - stroke * pace
        dsp.add(out, dsp.modes(left, partials, decays, gains, rng), begin + stroke * pace)
        dsp.add(out, _tap(rng, 1500.0, 8000.0, 0.02), begin + stroke * pace, 0.6)
    who = "a church bell" if is_large else "a small bell"
    return Take(out, f"{who} rings {times_word(number)}", number)


def glass_break(rng: Generator, duration_s: float) -> Take:
    """A hit, then shards that ring as they fall, thinning out."""
    out = np.zeros(dsp.samples(duration_s))
    begin = float(rng.uniform(0.05, 0.25))
    dsp.add(out, _tap(rng, 300.0, 10000.0, 0.12), begin, 2.5)
    dsp.add(out, dsp.modes(0.15, [420, 980], [0.08, 0.05], [1, 0.7]), begin)
    reach = min(1.0, max(0.3, duration_s - begin - 0.4))
    for _ in range(90):
        at = begin + min(float(rng.exponential(0.22)), reach)
        base = float(rng.uniform(2200, 9000))
        ringing = float(rng.uniform(0.05, 0.35))
        shard = dsp.modes(
            ringing,
            base * np.array([1, 1.53, 2.2]),
            [ringing, 0.6 * ringing, 0.3 * ringing],
            [1, 0.6, 0.4],
            rng,
        )
        dsp.add(out, shard, at, float(rng.uniform(0.1, 0.5)) * np.exp(-1.2 * (at - begin)))
    return Take(dsp.room(out, rng, 0.5, 0.15), "glass shatters")


def typing(rng: Generator, duration_s: float) -> Take:
    """Keys going down and up at an uneven pace, a wide key now and then."""
    pace, word = ((0.24, "slowly"), (0.12, "quickly"))[int(rng.integers(2))]
    out = np.zeros(dsp.samples(duration_s))
    start = 0.05
    while start < duration_s - 0.15:
        is_wide = rng.random() < 0.15
        body = float(rng.uniform(180, 260) if is_wide else rng.uniform(350, 650))
        click = dsp.modes(0.05, [body, 2.7 * body], [0.03, 0.015], [0.8, 0.5], rng)
        size = float(rng.uniform(0.6, 1.0))
        dsp.add(out, click + 0, start, size)
        dsp.add(out, _tap(rng, 1800.0, 8000.0, 0.012), start, size)
        dsp.add(out, _tap(rng, 2500.0, 9000.0, 0.008), start + float(rng.uniform(0.05, 0.09)), 0.4)
        start += pace * float(rng.uniform(0.6, 1.5)) + (0.3 if rng.random() < 0.06 else 0)
    return Take(dsp.room(out, rng, 0.2, 0.1), f"someone types {word} on a keyboard")


def applause(rng: Generator, duration_s: float) -> Take:
    """Many hands, each pair with its own pitch and pace."""
    count = dsp.samples(duration_s)
    people, clause = ((10, "a few people applaud"), (60, "a crowd applauds"))[int(rng.integers(2))]
    out = np.zeros(count)
    for _ in range(people):
        palm = float(np.exp(rng.uniform(np.log(700), np.log(2200))))
        clap = _tap(rng, palm / 1.5, palm * 2.2, 0.025)
        dsp.add(clap, _tap(rng, 2000.0, 9000.0, 0.008), 0.0, 0.4)
        pace, size = float(rng.uniform(0.2, 0.32)), float(rng.uniform(0.3, 1.0))
        start = float(rng.uniform(0, pace))
        while start < duration_s:
            dsp.add(out, clap, start, size * float(rng.uniform(0.7, 1)))
            start += pace * float(rng.uniform(0.85, 1.15))
    return Take(dsp.room(out, rng, 0.9, 0.35), clause)


def heartbeat(rng: Generator, duration_s: float) -> Take:
    """Lub and dub: two soft low thumps a beat."""
    rate = float(rng.choice((60.0, 75.0, 110.0)))
    word = "fast" if rate > 100 else "calmly"
    out = np.zeros(dsp.samples(duration_s))
    start = 0.1
    while start < duration_s - 0.45:
        for delay, pitch, size in ((0.0, 48.0, 1.0), (0.28 * (60 / rate) ** 0.5, 62.0, 0.7)):
            count = dsp.samples(0.16)
            glide = pitch * dsp.curve(count, [(0, 1.5), (0.3, 1), (1, 0.8)])
            thump = dsp.oscillate(glide, (1, 0.5, 0.2)) * dsp.strike(count, 0.015, 0.16)
            dsp.add(out, thump, start + delay, size)
        start += 60 / rate * float(rng.uniform(0.98, 1.02))
    out += 0.004 * dsp.noise(rng, len(out), -6.0)
    return Take(out, f"a heart beats {word}")


CLASSES = (
    SoundClass("clock_tick", "clock", "a ticking clock", TEXTURE, clock_tick, 2.5),
    SoundClass("door_knock", "knocks", "knocking on a door", EVENT, door_knock, 1.0),
    SoundClass("footsteps", "footsteps", "footsteps", TEXTURE, footsteps, 2.0),
    SoundClass("bell", "bell", "a ringing bell", EVENT, bell, 1.5, can_be_far=True),
    SoundClass("glass_break", "glass", "breaking glass", EVENT, glass_break, 1.0),
    SoundClass("typing", "keyboard", "typing on a keyboard", TEXTURE, typing, 1.5),
    SoundClass("applause", "applaud", "applause", TEXTURE, applause, 1.5),
    SoundClass("heartbeat", "heart", "a heartbeat", TEXTURE, heartbeat, 2.0),
)
"""Things and people."""
