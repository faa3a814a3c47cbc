"""The plan covers all classes, fills the time, and mixes alone, after and over."""

from __future__ import annotations

from collections import Counter

import pytest

from pipeline.data.starter.settings import StarterSettings
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


def test_a_scene_depends_on_seed_and_place_only() -> None:
    settings = StarterSettings(minutes=2)
    plan = plan_scenes(settings)[1]
    scene = render_scene(settings, plan)
    assert (render_scene(StarterSettings(minutes=5), plan).wave == scene.wave).all()
    other = render_scene(StarterSettings(minutes=2, seed=1), plan)
    assert other.wave.shape != scene.wave.shape or (other.wave != scene.wave).any()
