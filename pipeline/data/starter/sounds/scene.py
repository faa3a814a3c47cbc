"""Scenes: one sound alone, one after another, or one over another, and the caption of each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.data.starter import dsp
from pipeline.data.starter.dsp import Generator
from pipeline.data.starter.requests import as_requests, as_sentence
from pipeline.data.starter.sounds import animals, machines, objects, weather
from pipeline.data.starter.sounds.take import TEXTURE, SoundClass, Take
from pipeline.data.word_files import read_words

CLASSES: dict[str, SoundClass] = {
    item.name: item
    for item in (*weather.CLASSES, *animals.CLASSES, *machines.CLASSES, *objects.CLASSES)
}
"""Every class by name."""

BACKGROUNDS = ("rain", "wind", "sea_waves", "fire", "stream", "crickets", "applause", "engine")
"""Textures that other sounds may happen over."""
_FLOOR_DBFS = (-70.0, -62.0)
_WORDINGS = Path(__file__).with_name("wordings.yaml")
_NUM_WORDINGS = 8


@dataclass(frozen=True)
class Scene:
    """A finished clip.

    Attributes:
        wave: `channels samples`, one channel or two.
        classes: Class names by onset.
        caption: One sentence, true of the clip: what happens.
        name: Another one: which sounds they are.
        starts_s: Onset of each class.
        wordings: What people type who want one sound alone, as sentences; none for several sounds.
    """

    wave: dsp.Wave
    classes: tuple[str, ...]
    caption: str
    name: str
    starts_s: tuple[float, ...]
    wordings: tuple[str, ...]


def alone(rng: Generator, name: str, duration_s: float) -> Scene:
    """One class through the whole clip."""
    take = _take(rng, name, duration_s)
    wave = _channels(rng, take.wave, CLASSES[name].kind == TEXTURE)
    return _finish(rng, wave, (name,), (0.0,), take.clause, duration_s)


def one_after_another(rng: Generator, names: tuple[str, ...], duration_s: float) -> Scene:
    """Classes in order, each ending before the next begins.

    Args:
        rng: Draws everything.
        names: Two or three classes.
        duration_s: At least the sum of their `min_s`.
    """
    least = np.array([CLASSES[name].min_s for name in names])
    spare = duration_s - least.sum()
    lengths = least + spare * rng.dirichlet(np.ones(len(names)) * 3)
    out = np.zeros((2 if rng.random() < 0.4 else 1, dsp.samples(duration_s)))
    clauses, starts, clock = [], [], 0.0
    for name, length in zip(names, lengths, strict=True):
        take = _take(rng, name, float(length) - 0.1)
        part = dsp.to_level(dsp.fade(take.wave, 0.02, 0.15), -22.0)
        stereo = dsp.pan(part, float(rng.uniform(-0.5, 0.5))) if len(out) == 2 else part[None]
        for channel, side in zip(out, stereo, strict=True):
            dsp.add(channel, side, clock)
        clauses.append(take.clause)
        starts.append(clock)
        clock += float(length)
    caption = _in_order(rng, clauses)
    return _finish(rng, out, names, tuple(starts), caption, duration_s)


def one_over_another(rng: Generator, over: str, background: str, duration_s: float) -> Scene:
    """An event that happens while a texture goes on."""
    under = _take(rng, background, duration_s, may_be_far=False)
    begin = float(rng.uniform(0.15, 0.3)) * (duration_s - CLASSES[over].min_s)
    take = _take(rng, over, duration_s - begin - 0.1, may_be_far=False)
    bed = dsp.to_level(_channels(rng, under.wave, True), float(rng.uniform(-34, -30)))
    front = np.zeros(bed.shape)
    part = dsp.to_level(take.wave, -20.0)
    sides = dsp.pan(part, float(rng.uniform(-0.5, 0.5))) if len(bed) == 2 else part[None]
    for channel, side in zip(front, sides, strict=True):
        dsp.add(channel, side, begin)
    caption = (
        f"{under.clause} while {take.clause}"
        if rng.random() < 0.6
        else f"{take.clause} as {under.clause}"
    )
    names = (background, over)
    return _finish(rng, bed + front, names, (0.0, begin), caption, duration_s, is_over=True)


def _in_order(rng: Generator, clauses: list[str]) -> str:
    """Clauses in the order of their onsets, as one sentence."""
    if len(clauses) > 2:
        return f"{', then '.join(clauses[:-1])}, and finally {clauses[-1]}"
    opening = ("", "first ")[int(rng.integers(2))]
    return opening + ", then ".join(clauses)


def _take(rng: Generator, name: str, duration_s: float, *, may_be_far: bool = True) -> Take:
    item = CLASSES[name]
    take = item.render(rng, duration_s)
    if may_be_far and item.can_be_far and rng.random() < 0.35:
        clause = f"{take.clause} in the distance"
        take = replace(take, wave=dsp.far_away(take.wave, rng), clause=clause)
    return take


def _channels(rng: Generator, wave: dsp.Wave, is_diffuse: bool) -> dsp.Wave:
    if rng.random() < 0.6:
        return wave[None]
    if is_diffuse:
        return dsp.spread_stereo(wave, rng)
    return dsp.pan(wave, float(rng.uniform(-0.5, 0.5)))


def _finish(
    rng: Generator,
    wave: dsp.Wave,
    names: tuple[str, ...],
    starts_s: tuple[float, ...],
    caption: str,
    duration_s: float,
    *,
    is_over: bool = False,
) -> Scene:
    is_far = caption.endswith("in the distance") and len(names) == 1
    level = float(rng.uniform(-36, -30) if is_far else rng.uniform(-25, -17))
    count = dsp.samples(duration_s)
    padded = np.zeros((len(wave), count))
    padded[:, : wave.shape[1]] = wave[:, :count]
    padded = dsp.to_level(np.stack([dsp.fade(side, 0.01, 0.05) for side in padded]), level)
    air = dsp.noise(rng, count, -3.0)  # no place is digitally silent between two sounds
    padded += 10 ** (float(rng.uniform(*_FLOOR_DBFS)) / 20) * air
    named = _named(rng, [CLASSES[name].label for name in names], is_over=is_over)
    wordings = _wordings(rng, names[0], caption) if len(names) == 1 else ()
    return Scene(padded, names, as_sentence(caption), as_sentence(named), starts_s, wordings)


def _named(rng: Generator, labels: list[str], *, is_over: bool) -> str:
    """The labels of the sounds as a noun phrase, without what they do."""
    if is_over:
        return f"{labels[1]} with {labels[0]} in the background"
    if len(labels) > 1:
        return f"{labels[0]}, followed by {' and then '.join(labels[1:])}"
    forms = ("{}", "the sound of {}", "a recording of {}", "sound effect: {}")
    return forms[int(rng.integers(len(forms)))].format(labels[0])


def _wordings(rng: Generator, name: str, clause: str) -> tuple[str, ...]:
    """Other ways to ask for a sound, in random order; half of them say that it is far away."""
    known = read_words(_WORDINGS)[name]
    true = [
        text for word, texts in known.items() if word in ("any", *clause.split()) for text in texts
    ]
    drawn = [true[place] for place in rng.permutation(len(true))[:_NUM_WORDINGS]]
    if clause.endswith("in the distance"):
        drawn[::2] = [f"{text} in the distance" for text in drawn[::2]]
    return tuple(as_requests(rng, drawn, "sound"))
