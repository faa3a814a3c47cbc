"""The plan covers all classes, fills the time, and mixes alone, after and over."""

from __future__ import annotations

from collections import Counter

import pytest

from pipeline.data.starter.settings import SoundSettings, StarterSettings
from pipeline.data.starter.sounds.plan import plan_scenes, render_scene
from pipeline.data.starter.sounds.scene import CLASSES


@pytest.mark.parametrize("minutes", [0.5, 2.0, 40.0])
def test_the_time_is_filled_with_scenes_that_fit(minutes: float) -> None:
    plans = plan_scenes(StarterSettings(minutes=minutes))
    assert sum(plan.duration_s for plan in plans) == pytest.approx(minutes * 18, rel=0.01)
    for plan in plans:
        least = [CLASSES[name].min_s for name in plan.names]
        assert (max(least) if plan.kind == "over" else sum(least)) <= plan.duration_s
        assert len(plan.names) >= {"alone": 1, "over": 2, "after": 2}[plan.kind]


def test_twelve_minutes_hold_every_class_and_every_kind_of_scene() -> None:
    plans = plan_scenes(StarterSettings(minutes=12))
    assert {name for plan in plans for name in plan.names} == set(CLASSES)
    kinds = Counter(plan.kind for plan in plans)
    assert min(kinds["alone"], kinds["after"], kinds["over"]) >= 4


def test_classes_come_equally_often_alone() -> None:
    plans = plan_scenes(StarterSettings(minutes=120))
    counts = Counter(plan.names[0] for plan in plans if plan.kind == "alone")
    assert set(counts) == set(CLASSES)
    assert max(counts.values()) - min(counts.values()) <= 3


def test_only_the_classes_of_the_settings_are_planned() -> None:
    names = ("rain", "dog_bark", "bell")
    sound = SoundSettings(classes=names, mixed_share=1)
    plans = plan_scenes(StarterSettings(minutes=20, sound=sound))
    assert {name for plan in plans for name in plan.names} == set(names)
    assert {plan.kind for plan in plans} == {"alone", "after", "over"}


@pytest.mark.parametrize(("share", "kinds"), [(0.0, {"alone"}), (1.0, {"after", "over"})])
def test_sounds_are_mixed_as_often_as_asked(share: float, kinds: set[str]) -> None:
    sound = SoundSettings(mixed_share=share, min_s=6, max_s=12)
    plans = plan_scenes(StarterSettings(minutes=20, sound=sound))
    assert {plan.kind for plan in plans} == kinds


def test_classes_without_a_background_are_not_laid_over_one() -> None:
    sound = SoundSettings(classes=("dog_bark", "bell"), mixed_share=1)
    plans = plan_scenes(StarterSettings(minutes=5, sound=sound))
    assert {plan.kind for plan in plans} == {"alone", "after"}


def test_a_clip_too_short_for_every_class_takes_the_quickest() -> None:
    sound = SoundSettings(classes=("sea_waves", "clock_tick"), mixed_share=0, min_s=1, max_s=5)
    plans = plan_scenes(StarterSettings(minutes=10, sound=sound))
    short = [plan.names for plan in plans if plan.duration_s < 2.5]
    assert short
    assert set(short) == {("clock_tick",)}


def test_a_scene_depends_on_seed_and_place_only() -> None:
    settings = StarterSettings(minutes=2)
    plan = plan_scenes(settings)[1]
    scene = render_scene(settings, plan)
    assert (render_scene(StarterSettings(minutes=5), plan).wave == scene.wave).all()
    other = render_scene(StarterSettings(minutes=2, seed=1), plan)
    assert other.wave.shape != scene.wave.shape or (other.wave != scene.wave).any()
