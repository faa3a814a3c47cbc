"""Scenes are as long as asked, hold their sounds in the order of the caption, and repeat."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.starter import dsp
from pipeline.data.starter.sounds.scene import (
    BACKGROUNDS,
    CLASSES,
    TEXTURE,
    Scene,
    alone,
    one_after_another,
    one_over_another,
)


def _check(scene: Scene, duration_s: float) -> None:
    assert scene.wave.shape[0] in (1, 2)
    assert scene.wave.shape[1] == dsp.samples(duration_s)
    assert np.isfinite(scene.wave).all()
    assert 0.01 < np.abs(scene.wave).max() < 0.95
    assert scene.caption[0].isupper()
    assert scene.caption.endswith(".")


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_alone(name: str) -> None:
    scene = alone(np.random.default_rng(1), name, CLASSES[name].min_s + 0.5)
    _check(scene, CLASSES[name].min_s + 0.5)
    assert CLASSES[name].keyword in scene.caption.lower()
    assert CLASSES[name].label in scene.name.lower()
    assert scene.classes == (name,)
    assert len(set(scene.wordings)) >= 7
    assert all(text[0].isupper() and text.endswith(".") for text in scene.wordings)


def test_wordings_are_true_of_the_clause() -> None:
    scenes = [alone(np.random.default_rng(seed), "rain", 1.0) for seed in range(12)]
    heavy = " ".join(t for s in scenes if "Heavy" in s.caption for t in s.wordings).lower()
    light = " ".join(t for s in scenes if "Light" in s.caption for t in s.wordings).lower()
    strong, soft = ("heavy", "pour", "storm", "hard"), ("light", "drizzle", "soft", "gentle")
    assert any(word in heavy for word in strong)
    assert any(word in light for word in soft)
    assert not any(word in light for word in strong)
    assert not any(word in heavy for word in soft)
    far = [alone(np.random.default_rng(seed), "owl", 2.0) for seed in range(12)]
    told = [scene.wordings for scene in far if "distance" in scene.caption]
    assert told
    assert all([("distance" in text) for text in texts] == [True, False] * 4 for texts in told)


def test_sounds_in_a_row_are_described_in_their_order() -> None:
    for seed in range(6):
        names = ("rain", "thunder", "dog_bark") if seed % 2 else ("door_knock", "glass_break")
        scene = one_after_another(np.random.default_rng(seed), names, 7.0)
        _check(scene, 7.0)
        places = [scene.caption.lower().index(CLASSES[name].keyword) for name in names]
        assert places == sorted(places)
        assert list(scene.starts_s) == sorted(scene.starts_s)
        assert scene.starts_s[0] == 0


def test_sounds_in_a_row_are_named_in_order() -> None:
    scene = one_after_another(np.random.default_rng(1), ("rain", "thunder", "dog_bark"), 7.0)
    assert scene.name == "Rain, followed by thunder and then a barking dog."


def test_a_sound_in_a_row_begins_where_it_is_said_to() -> None:
    scene = one_after_another(np.random.default_rng(3), ("heartbeat", "glass_break"), 6.0)
    bright = dsp.band(scene.wave.mean(axis=0), 4000.0, None, 4)
    start = dsp.samples(scene.starts_s[1])
    assert dsp.rms(bright[start : start + 44_100]) > 20 * dsp.rms(bright[:start])


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_something_happens_over_a_background(background: str) -> None:
    assert CLASSES[background].kind == TEXTURE
    scene = one_over_another(np.random.default_rng(2), "door_knock", background, 5.0)
    _check(scene, 5.0)
    caption = scene.caption.lower()
    assert "knocks" in caption
    assert CLASSES[background].keyword in caption
    assert scene.classes == (background, "door_knock")
    label = CLASSES[background].label
    assert scene.name == f"Knocking on a door with {label} in the background."


def test_an_event_stands_out_of_its_background() -> None:
    scene = one_over_another(np.random.default_rng(2), "car_horn", "wind", 5.0)
    start = dsp.samples(scene.starts_s[1])
    pieces = [dsp.rms(scene.wave[:, at : at + 4410]) for at in range(0, 5 * 44_100, 4410)]
    assert max(pieces[start // 4410 :]) > 2.5 * max(pieces[: start // 4410])


def test_the_same_generator_state_gives_the_same_scene() -> None:
    first, second = (
        one_after_another(np.random.default_rng(5), ("wind", "owl"), 5.0) for _ in range(2)
    )
    assert first.caption == second.caption
    assert (first.wave == second.wave).all()


def test_distance_is_said_and_heard() -> None:
    scenes = [alone(np.random.default_rng(seed), "car_horn", 3.0) for seed in range(12)]
    near = [np.abs(s.wave).max() for s in scenes if "distance" not in s.caption]
    far = [np.abs(s.wave).max() for s in scenes if "distance" in s.caption]
    assert near
    assert far
    assert np.median(far) < 0.5 * np.median(near)
