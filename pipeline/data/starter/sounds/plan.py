"""Which scenes a corpus holds: every class alone in turn, and combinations between them."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.data.starter.dsp import Generator
from pipeline.data.starter.settings import SoundSettings, StarterSettings, clip_durations, generator
from pipeline.data.starter.sounds.scene import (
    BACKGROUNDS,
    CLASSES,
    Scene,
    alone,
    one_after_another,
    one_over_another,
)
from pipeline.data.starter.sounds.take import EVENT


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
        settings.budget_s("sound"), settings.sound.min_s, settings.sound.max_s, rng
    )
    deck: list[str] = []
    plans = []
    for index, duration_s in enumerate(durations):
        kind, names = _combination(rng, settings.sound, duration_s)
        if kind == "alone":
            names = (_deal(rng, settings.sound.classes, deck, duration_s),)
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


def _combination(
    rng: Generator, sound: SoundSettings, duration_s: float
) -> tuple[str, tuple[str, ...]]:
    """A kind of scene that fits the duration; alone where no combination does."""
    draw = rng.random()
    if draw >= sound.mixed_share:
        return "alone", ()
    if draw < sound.mixed_share / 2:
        order = [sound.classes[place] for place in rng.permutation(len(sound.classes))]
        names: list[str] = []
        left = duration_s
        for name in order:
            if len(names) < (3 if duration_s > 6 else 2) and CLASSES[name].min_s + 0.3 <= left:
                names.append(name)
                left -= CLASSES[name].min_s + 0.3
        return ("after", tuple(names)) if len(names) >= 2 else ("alone", ())
    beds = [name for name in sound.classes if name in BACKGROUNDS and _fits(name, duration_s)]
    events = [
        name
        for name in sound.classes
        if CLASSES[name].kind == EVENT and _fits(name, duration_s - 0.5)
    ]
    if not beds or not events:
        return "alone", ()
    bed = beds[int(rng.integers(len(beds)))]
    return "over", (bed, events[int(rng.integers(len(events)))])


def _fits(name: str, duration_s: float) -> bool:
    return CLASSES[name].min_s <= duration_s


def _deal(rng: Generator, classes: tuple[str, ...], deck: list[str], duration_s: float) -> str:
    """The next class of a shuffled deck that fits; a new deck when it is used up.

    Where none of the deck fits, any class that does, and else the one that needs the least.
    """
    if not deck:
        deck += [classes[place] for place in rng.permutation(len(classes))]
    for name in deck:
        if _fits(name, duration_s):
            deck.remove(name)
            return name
    fitting = [name for name in classes if _fits(name, duration_s)]
    if not fitting:
        return min(classes, key=lambda name: CLASSES[name].min_s)
    return fitting[int(rng.integers(len(fitting)))]
