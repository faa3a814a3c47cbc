"""Animals: voices from a source, formants and a pitch curve; insects from pulsed carriers."""

from __future__ import annotations

import numpy as np

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

_SAW = 1 / np.arange(1, 41)


def _bark(rng: Generator, size: float) -> Wave:
    """A sharp rise and a longer fall in pitch, rough, with an opening mouth."""
    count = dsp.samples(float(rng.uniform(0.16, 0.24)))
    pitch = dsp.curve(count, [(0, 0.75), (0.2, 1.25), (0.5, 1.1), (1, 0.6)]) * 380 / size
    pitch *= 1 + 0.02 * dsp.wander(rng, count, 60.0)
    breath = dsp.noise(rng, count) * 0.25
    source = dsp.oscillate(pitch, _SAW) * (1 + 0.5 * dsp.wander(rng, count, 90.0)) + breath
    formants = np.array([750, 1350, 2700, 4200]) / size**0.6
    voiced = dsp.resonate(source, formants, [220, 280, 500, 800]) + 0.15 * source
    return voiced * dsp.curve(count, [(0, 0), (0.06, 1), (0.4, 0.8), (1, 0)])


def dog_bark(rng: Generator, duration_s: float) -> Take:
    """Separate barks of one dog."""
    who, size = (("a small dog", 0.6), ("a dog", 1.0), ("a large dog", 1.6))[int(rng.integers(3))]
    number = pick_count(rng, duration_s, 0.25, 0.25)
    out = np.zeros(dsp.samples(duration_s))
    for start in onsets(rng, duration_s, [0.25] * number, 0.22):
        dsp.add(out, _bark(rng, size), start, float(rng.uniform(0.8, 1.0)))
    return Take(dsp.room(out, rng, 0.3, 0.15), f"{who} barks {times_word(number)}", number)


def cat_meow(rng: Generator, duration_s: float) -> Take:
    """Mee-ow: the pitch arches, the mouth opens and closes."""
    length = float(rng.uniform(0.6, 0.9))
    number = pick_count(rng, duration_s, length, 0.4, most=3)
    out = np.zeros(dsp.samples(duration_s))
    for start in onsets(rng, duration_s, [length] * number, 0.35):
        count = dsp.samples(length)
        base = float(rng.uniform(480, 620))
        pitch = base * dsp.curve(count, [(0, 0.85), (0.3, 1.25), (0.6, 1.1), (1, 0.7)])
        pitch *= 1 + 0.01 * np.sin(2 * np.pi * 6 * dsp.times(count))
        source = dsp.oscillate(pitch, _SAW[:16]) + 0.03 * dsp.noise(rng, count)
        closed = dsp.resonate(source, [500, 2600, 3600], [200, 300, 400])
        opened = dsp.resonate(source, [1100, 1800, 3300], [200, 300, 400])
        mouth = dsp.curve(count, [(0, 0), (0.25, 0.1), (0.5, 1), (0.8, 0.7), (1, 0.1)])
        voice = (1 - mouth) * closed + mouth * opened
        dsp.add(out, voice * dsp.curve(count, [(0, 0), (0.12, 0.7), (0.5, 1), (1, 0)]), start)
    return Take(out, f"a cat meows {times_word(number)}", number)


def bird_chirp(rng: Generator, duration_s: float) -> Take:
    """Separate chirps, all the same bird: fast sweeps, some with a trill."""
    number = pick_count(rng, duration_s, 0.3, 0.2, most=6)
    top, bottom = float(rng.uniform(4200, 6000)), float(rng.uniform(2400, 3600))
    trill = float(rng.choice((0.0, 25.0, 45.0)))
    out = np.zeros(dsp.samples(duration_s))
    for start in onsets(rng, duration_s, [0.3] * number, 0.2):
        for place, length in ((0.0, 0.09), (0.12, float(rng.uniform(0.1, 0.16)))):
            count = dsp.samples(length)
            rises = place == 0
            ends = (bottom, top) if rises else (top, bottom)
            sweep = dsp.curve(count, [(0, ends[0]), (0.7, ends[1]), (1, 0.95 * ends[1])])
            sweep *= 1 + (0.05 if trill else 0) * np.sin(2 * np.pi * trill * dsp.times(count))
            tone = dsp.oscillate(sweep, (1.0, 0.08)) * np.sin(np.pi * np.linspace(0, 1, count))
            dsp.add(out, tone, start + place)
    return Take(dsp.room(out, rng, 0.6, 0.12), f"a bird chirps {times_word(number)}", number)


def birdsong(rng: Generator, duration_s: float) -> Take:
    """A continuous song of whistles and trills, without a count."""
    out = np.zeros(dsp.samples(duration_s))
    motif = [
        (
            float(rng.uniform(2200, 5500)),
            float(rng.uniform(0.7, 1.5)),
            float(rng.uniform(0.05, 0.2)),
        )
        for _ in range(5)
    ]
    clock = float(rng.uniform(0.05, 0.2))
    while clock < duration_s - 0.3:
        pitch, bend, length = motif[int(rng.integers(len(motif)))]
        for _ in range(int(rng.choice((1, 1, 2, 4)))):
            count = dsp.samples(length)
            sweep = pitch * dsp.curve(count, [(0, 1), (0.5, bend**0.5), (1, bend)])
            tone = dsp.oscillate(np.minimum(sweep, 8000), (1.0, 0.05))
            dsp.add(out, tone * np.sin(np.pi * np.linspace(0, 1, count)), clock)
            clock += length + 0.03
        clock += float(rng.exponential(0.15))
    return Take(dsp.room(out, rng, 0.8, 0.2), "a bird sings")


def crickets(rng: Generator, duration_s: float) -> Take:
    """Several crickets, each a carrier in short pulse groups at its own beat."""
    count = dsp.samples(duration_s)
    time = dsp.times(count)
    out = 0.004 * dsp.noise(rng, count, -3.0)
    for size in (1.0, 0.5, 0.3):
        carrier, beat = float(rng.uniform(4000, 5200)), float(rng.uniform(2.2, 3.6))
        phase = (time * beat + rng.random()) % 1
        pulses = np.maximum(np.sin(2 * np.pi * 32 * phase / beat), 0) ** 1.5
        group = phase / beat < 3.5 / 32
        tone = np.sin(2 * np.pi * carrier * time) + 0.1 * np.sin(4 * np.pi * carrier * time)
        out += size * tone * pulses * group
    return Take(out, "crickets chirp")


def frog(rng: Generator, duration_s: float) -> Take:
    """Croaks: a slow train of pulses through a throat."""
    number = pick_count(rng, duration_s, 0.4, 0.35, most=4)
    throat, rate = float(rng.uniform(500, 900)), float(rng.uniform(38, 60))
    out = np.zeros(dsp.samples(duration_s))
    for start in onsets(rng, duration_s, [0.4] * number, 0.3):
        count = dsp.samples(0.38)
        speed = rate * dsp.curve(count, [(0, 0.8), (0.5, 1.1), (1, 0.9)])
        pulses = np.diff(np.floor(np.cumsum(speed) / dsp.SAMPLE_RATE), prepend=0)
        voice = dsp.resonate(pulses, [throat, 2.4 * throat], [120, 250])
        dsp.add(out, voice * dsp.curve(count, [(0, 0), (0.1, 0.6), (0.7, 1), (1, 0)]), start)
    return Take(dsp.room(out, rng, 0.4, 0.15), f"a frog croaks {times_word(number)}", number)


def owl(rng: Generator, duration_s: float) -> Take:
    """Hoots: soft low whistles that bend a little."""
    number = pick_count(rng, duration_s, 0.45, 0.25, most=4)
    base = float(rng.uniform(320, 420))
    out = np.zeros(dsp.samples(duration_s))
    for start in onsets(rng, duration_s, [0.45] * number, 0.25):
        count = dsp.samples(0.42)
        pitch = base * dsp.curve(count, [(0, 0.93), (0.3, 1.03), (1, 0.9)])
        tone = dsp.oscillate(pitch, (1.0, 0.12, 0.04))
        breath = 0.04 * dsp.band(dsp.noise(rng, count), base, 3 * base, 1)
        swell = np.sin(np.pi * np.linspace(0, 1, count)) ** 0.7
        dsp.add(out, (tone + breath) * swell, start)
    return Take(dsp.room(out, rng, 1.2, 0.3), f"an owl hoots {times_word(number)}", number)


def bee(rng: Generator, duration_s: float) -> Take:
    """A buzz that comes near and goes away."""
    count = dsp.samples(duration_s)
    near = np.exp(1.6 * dsp.wander(rng, count, 0.8))
    pitch = float(rng.uniform(180, 240)) * (1 + 0.06 * dsp.wander(rng, count, 2.5))
    pitch *= 1 + 0.01 * dsp.wander(rng, count, 30.0)
    buzz = dsp.oscillate(pitch, 1 / np.arange(1, 25) ** 0.8)
    return Take(dsp.band(buzz, 150.0, 5000.0, 1) * near, "a bee buzzes around")


CLASSES = (
    SoundClass("dog_bark", "dog", "a barking dog", EVENT, dog_bark, 1.0, can_be_far=True),
    SoundClass("cat_meow", "cat", "a meowing cat", EVENT, cat_meow, 1.2),
    SoundClass("bird_chirp", "chirps", "a chirping bird", EVENT, bird_chirp, 1.0),
    SoundClass("birdsong", "sings", "birdsong", TEXTURE, birdsong, 2.0),
    SoundClass("crickets", "crickets", "crickets", TEXTURE, crickets, 1.5),
    SoundClass("frog", "frog", "a croaking frog", EVENT, frog, 1.0),
    SoundClass("owl", "owl", "a hooting owl", EVENT, owl, 1.2, can_be_far=True),
    SoundClass("bee", "bee", "a buzzing bee", TEXTURE, bee, 1.5),
)
"""Animals."""
