"""Which scenes a corpus holds: every class alone in turn, and combinations between them."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.data.starter.dsp import Generator
from pipeline.data.starter.settings import StarterSettings, clip_durations, generator
from pipeline.data.starter.sounds.scene import (
    BACKGROUNDS,
    CLASSES,
    Scene,
    alone,
    one_after_another,
    one_over_another,
)
from pipeline.data.starter.sounds.take import EVENT

ALONE_SHARE, AFTER_SHARE = 0.6, 0.2
"""Shares of scenes with one sound, and with sounds in a row; the rest is one over another."""


@dataclass(frozen=True)
class ScenePlan:
    """A scene to be rendered: `kind` is alone, after or over; over has the background first."""

    index: int
    kind: str
    names: tuple[str, ...]
    duration_s: float


def plan_scenes(settings: StarterSettings) -> list[ScenePlan]:
    """All scenes of the corpus, in order."""
    rng = generator(settings, "scenes")
    durations = clip_durations(
        settings.budget_s("sound"), settings.sound_min_s, settings.sound_max_s, rng
    )
    deck: list[str] = []
    plans = []
    for index, duration_s in enumerate(durations):
        kind, names = _combination(rng, duration_s)
        if kind == "alone":
            names = (_deal(rng, deck, duration_s),)
        plans.append(ScenePlan(index, kind, names, duration_s))
    return plans


def render_scene(settings: StarterSettings, plan: ScenePlan) -> Scene:
    """Render one planned scene; depends on nothing but settings' seed and plan."""
    rng = generator(settings, "sound", plan.index)
    if plan.kind == "alone":
        return alone(rng, plan.names[0], plan.duration_s)
    if plan.kind == "over":
        return one_over_another(rng, plan.names[1], plan.names[0], plan.duration_s)
    return one_after_another(rng, plan.names, plan.duration_s)


def _combination(rng: Generator, duration_s: float) -> tuple[str, tuple[str, ...]]:
    """A kind of scene that fits the duration; alone where no combination does."""
    draw = rng.random()
    if draw < ALONE_SHARE:
        return "alone", ()
    if draw < ALONE_SHARE + AFTER_SHARE:
        order = [list(CLASSES)[place] for place in rng.permutation(len(CLASSES))]
        names: list[str] = []
        left = duration_s
        for name in order:
            if len(names) < (3 if duration_s > 6 else 2) and CLASSES[name].min_s + 0.3 <= left:
                names.append(name)
                left -= CLASSES[name].min_s + 0.3
        return ("after", tuple(names)) if len(names) >= 2 else ("alone", ())
    beds = [name for name in BACKGROUNDS if CLASSES[name].min_s <= duration_s]
    bed = beds[int(rng.integers(len(beds)))]
    events = [
        item.name
        for item in CLASSES.values()
        if item.kind == EVENT and item.min_s + 0.5 <= duration_s
    ]
    return "over", (bed, events[int(rng.integers(len(events)))])


def _deal(rng: Generator, deck: list[str], duration_s: float) -> str:
    """The next class of a shuffled deck that fits; a new deck when it is used up."""
    if not deck:
        deck += [list(CLASSES)[place] for place in rng.permutation(len(CLASSES))]
    for name in deck:
        if CLASSES[name].min_s <= duration_s:
            deck.remove(name)
            return name
    fitting = [name for name, item in CLASSES.items() if item.min_s <= duration_s]
    return fitting[int(rng.integers(len(fitting)))]
