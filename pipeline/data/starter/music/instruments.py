"""Instruments: a frequency and a length in seconds, and the tone it makes, release included."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pipeline.data.starter import dsp
from pipeline.data.starter.dsp import SAMPLE_RATE, Wave
from pipeline.data.starter.music.tones import adsr, pluck, pulse, saw, sweep, vibrato

Instrument = Callable[[float, float], Wave]
"""Frequency in Hz and held time in seconds to a tone of about unit peak."""


def _flat(frequency: float, length_s: float) -> Wave:
    return np.full(dsp.samples(length_s), frequency)


def _air(count: int, frequency: float) -> Wave:
    return dsp.band(dsp.noise(np.random.default_rng(7), count), frequency, 4 * frequency, 1)


def piano(frequency: float, held_s: float) -> Wave:
    """Struck strings: stretched partials that fade the faster the higher they are."""
    number = np.arange(1, int(min(14, 9000 // frequency)) + 1)
    partials = frequency * number * np.sqrt(1 + 0.0004 * number**2)
    decays = np.clip(6.0 * (220 / frequency) ** 0.5, 1.2, 9.0) / number**0.7
    gains = 1 / number**1.35 * (1 - 0.6 * np.cos(2 * np.pi * number / 8)) / 1.6
    tone = dsp.modes(held_s + 0.25, partials, decays, gains)
    hammer = dsp.band(dsp.noise(np.random.default_rng(5), len(tone)), 300.0, 3000.0, 1)
    tone += 0.12 * hammer * np.exp(-dsp.times(len(tone)) / 0.012)
    return 0.6 * tone * adsr(len(tone), 0.002, 0.1, 1.0, 0.22)


def fm(ratio: float, index: float, decay_s: float, fall_s: float) -> Instrument:
    """Two-operator frequency modulation whose brightness decays.

    Args:
        ratio: Modulator to carrier frequency.
        index: Modulation at the attack.
        decay_s: Time constant of the loudness.
        fall_s: Time constant of the brightness.
    """

    def play(frequency: float, held_s: float) -> Wave:
        """One note: its frequency in Hz, and how long it is held."""
        time = dsp.times(dsp.samples(held_s + min(decay_s, 0.6)))
        depth = index * np.exp(-time / fall_s)
        tone = np.sin(
            2 * np.pi * frequency * time + depth * np.sin(2 * np.pi * ratio * frequency * time)
        )
        return tone * np.exp(-time / decay_s) * adsr(len(tone), 0.003, 0.1, 1.0, 0.2)

    return play


def electric_piano(frequency: float, held_s: float) -> Wave:
    """A tine over a soft fundamental, with slow tremolo."""
    tone = fm(1.0, 1.2, 1.6, 0.5)(frequency, held_s)
    tine = fm(14.0, 0.6, 0.25, 0.1)(frequency, held_s)
    dsp.add(tone, tine, 0.0, 0.12)
    return 0.85 * tone * (1 + 0.12 * np.sin(2 * np.pi * 4.5 * dsp.times(len(tone))))


def string(brightness: float, decay_s: float, held: float = 1.0) -> Instrument:
    """A plucked string; `held` below 1 damps it before its time is over."""

    def play(frequency: float, held_s: float) -> Wave:
        """One note: its frequency in Hz, and how long it is held."""
        tone = pluck(frequency, round(held_s * held + 0.12, 3), brightness, decay_s)
        return tone * adsr(len(tone), 0.001, 0.1, 1.0, 0.1)

    return play


def driven_guitar(frequency: float, held_s: float) -> Wave:
    """A plucked string through a warm amplifier."""
    tone = pluck(frequency, round(held_s + 0.15, 3), 0.7, 5.0)
    warm = dsp.band(np.tanh(4 * tone), 90.0, 3800.0, 1)
    return 0.8 * warm * adsr(len(tone), 0.002, 0.1, 1.0, 0.12)


def drawbars(levels: Sequence[float], attack_s: float = 0.008) -> Instrument:
    """An organ: sines at the sub-octave, fundamental, twelfth and so on, with slow rotation."""
    footage = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)

    def play(frequency: float, held_s: float) -> Wave:
        """One note: its frequency in Hz, and how long it is held."""
        time = dsp.times(dsp.samples(held_s + 0.06))
        spin = 0.0015 * np.sin(2 * np.pi * 5.8 * time)
        tone = np.zeros_like(time)
        for level, foot in zip(levels, footage, strict=True):
            tone += level * np.sin(2 * np.pi * frequency * foot * (time + spin * 0.05))
        return tone / sum(levels) * adsr(len(time), attack_s, 0.1, 1.0, 0.05)

    return play


def ensemble(attack_s: float, cutoff: float, release_s: float, detune: float) -> Instrument:
    """Several saws slightly apart through a low-pass: string sections and pads."""

    def play(frequency: float, held_s: float) -> Wave:
        """One note: its frequency in Hz, and how long it is held."""
        count = dsp.samples(held_s + release_s)
        voices = np.zeros(count)
        for number, cents in enumerate((-1.0, -0.35, 0.4, 1.0)):
            curve = frequency * 2 ** (detune * cents / 1200) * np.ones(count)
            voices += saw(curve, 0.23 * number)
        dull = dsp.band(voices, None, float(np.clip(cutoff * frequency, 500, 9000)), 2)
        return 0.3 * dull * adsr(count, attack_s, 0.3, 0.85, release_s)

    return play


def bowed(frequency: float, held_s: float) -> Wave:
    """A solo violin or cello: a saw with vibrato in a wooden body."""
    count = dsp.samples(held_s + 0.12)
    tone = saw(frequency * vibrato(count, 0.006))
    body = dsp.resonate(tone, [290, 480, 1100, 2600], [80, 120, 350, 900])
    out = 0.25 * dsp.band(tone, None, 3500.0, 1) + 0.8 * body + 0.01 * _air(count, 1500.0)
    return out * adsr(count, 0.06, 0.2, 0.85, 0.12)


def wind(harmonics: Sequence[float], breath: float, attack_s: float, depth: float) -> Instrument:
    """A blown pipe: few harmonics, breath noise, vibrato."""

    def play(frequency: float, held_s: float) -> Wave:
        """One note: its frequency in Hz, and how long it is held."""
        count = dsp.samples(held_s + 0.08)
        pitch = frequency * vibrato(count, depth)
        pitch[: dsp.samples(attack_s)] *= np.linspace(0.985, 1, min(count, dsp.samples(attack_s)))
        tone = dsp.oscillate(pitch, harmonics) / sum(np.abs(harmonics))
        chiff = 1 + 3 * np.exp(-dsp.times(count) / 0.04)
        return (
            1.2
            * (tone + breath * chiff * _air(count, frequency))
            * adsr(count, attack_s, 0.2, 0.9, 0.08)
        )

    return play


def brass(top: float, attack_s: float) -> Instrument:
    """Lips and bell: the louder, the brighter; `top` is the brightest partial."""

    def play(frequency: float, held_s: float) -> Wave:
        """One note: its frequency in Hz, and how long it is held."""
        count = dsp.samples(held_s + 0.08)
        tone = saw(frequency * vibrato(count, 0.004))
        loud = adsr(count, attack_s, 0.15, 0.75, 0.08)
        return 0.7 * sweep(tone, frequency * (1 + top * loud)) * loud

    return play


def reeds(frequency: float, held_s: float) -> Wave:
    """Accordion: two sets of reeds beating against each other."""
    count = dsp.samples(held_s + 0.06)
    tone = pulse(_flat(frequency, held_s + 0.06), 0.3) + pulse(
        _flat(frequency * 1.004, held_s + 0.06), 0.3
    )
    return 0.35 * dsp.band(tone, 150.0, 5000.0, 1) * adsr(count, 0.03, 0.2, 0.9, 0.06)


def synth(width: float | None, top_hz: float, fall_s: float, sustain: float) -> Instrument:
    """Subtractive synthesiser: saw (width None) or pulse, with a cutoff that falls."""

    def play(frequency: float, held_s: float) -> Wave:
        """One note: its frequency in Hz, and how long it is held."""
        count = dsp.samples(held_s + 0.05)
        pitch = _flat(frequency, held_s + 0.05)
        tone = (
            saw(pitch * 0.997) + saw(pitch * 1.003, 0.4) if width is None else pulse(pitch, width)
        )
        fall = np.exp(-dsp.times(count) / fall_s)
        cutoff = np.maximum(1.5 * frequency, 200) + top_hz * (sustain + (1 - sustain) * fall)
        return 0.5 * sweep(tone, cutoff) * adsr(count, 0.004, fall_s, 0.6, 0.05)

    return play


def chip(width: float | None) -> Instrument:
    """A console's sound channel: pulse of some width, or a stepped triangle (None)."""

    def play(frequency: float, held_s: float) -> Wave:
        """One note: its frequency in Hz, and how long it is held."""
        count = dsp.samples(held_s)
        if width is not None:
            return 0.5 * pulse(_flat(frequency, held_s), width) * adsr(count, 0.001, 0.2, 0.7, 0.01)
        phase = (np.cumsum(_flat(frequency, held_s)) / SAMPLE_RATE) % 1
        triangle = np.round((4 * np.abs(phase - 0.5) - 1) * 7.5) / 7.5
        return 0.8 * triangle * adsr(count, 0.001, 0.1, 1.0, 0.01)

    return play


def sub_bass(frequency: float, held_s: float) -> Wave:
    """A sine with a little warmth."""
    tone = dsp.oscillate(_flat(frequency, held_s + 0.06), (1.0, 0.25, 0.08))
    return 0.8 * tone * adsr(len(tone), 0.012, 0.2, 0.9, 0.06)


INSTRUMENTS: dict[str, Instrument] = {
    "piano": piano,
    "electric piano": electric_piano,
    "bells": fm(3.5, 2.2, 1.2, 0.5),
    "vibraphone": fm(4.0, 0.7, 0.9, 0.15),
    "harpsichord": string(1.0, 2.5),
    "acoustic guitar": string(0.75, 4.0),
    "muted guitar": string(0.45, 1.2, 0.7),
    "electric guitar": driven_guitar,
    "bass guitar": string(0.35, 5.0),
    "double bass": string(0.15, 2.2),
    "organ": drawbars((0.5, 1.0, 0.6, 0.6, 0.3, 0.3, 0.1)),
    "string pad": ensemble(0.5, 5.0, 0.7, 9.0),
    "synth pad": ensemble(0.7, 3.0, 0.9, 14.0),
    "string section": ensemble(0.08, 6.0, 0.15, 7.0),
    "brass section": brass(6.0, 0.03),
    "trumpet": brass(9.0, 0.025),
    "tuba": brass(3.5, 0.04),
    "violin": bowed,
    "cello": bowed,
    "flute": wind((1.0, 0.35, 0.12, 0.04), 0.05, 0.05, 0.005),
    "piccolo": wind((1.0, 0.2, 0.05), 0.03, 0.03, 0.004),
    "recorder": wind((1.0, 0.08, 0.2, 0.03), 0.03, 0.03, 0.002),
    "whistle": wind((1.0, 0.1, 0.03), 0.06, 0.03, 0.006),
    "clarinet": wind((1.0, 0.04, 0.6, 0.05, 0.35, 0.04, 0.2), 0.015, 0.03, 0.002),
    "saxophone": wind((1.0, 0.8, 0.7, 0.55, 0.4, 0.3, 0.2, 0.12, 0.08), 0.04, 0.04, 0.007),
    "harmonica": wind((1.0, 0.5, 0.8, 0.5, 0.6, 0.3, 0.3, 0.2), 0.02, 0.04, 0.009),
    "melodica": wind((1.0, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15), 0.015, 0.03, 0.002),
    "accordion": reeds,
    "synth lead": synth(None, 4500.0, 0.2, 0.3),
    "pulse lead": synth(0.3, 3500.0, 0.15, 0.2),
    "synth stab": synth(None, 3000.0, 0.1, 0.1),
    "synth bass": synth(None, 1400.0, 0.12, 0.1),
    "sub bass": sub_bass,
    "square lead": chip(0.5),
    "pulse arpeggio": chip(0.25),
    "triangle bass": chip(None),
}
"""Every pitched instrument by the name in labels."""
