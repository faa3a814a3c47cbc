"""The minutes become clips whose durations add up, or the settings are refused."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.starter.settings import StarterSettings, clip_durations, generator
from pipeline.errors import SettingsError
from pipeline.settings import load_settings


@pytest.mark.parametrize("minutes", [0, -1, 0.49, 601, float("inf"), float("nan")])
def test_minutes_outside_the_limits_are_refused(minutes: float) -> None:
    with pytest.raises(ValueError, match="minutes"):
        StarterSettings(minutes=minutes)


def test_a_refused_value_is_named_with_its_limit() -> None:
    with pytest.raises(SettingsError, match=r"'minutes' is 0: .* 0\.5"):
        load_settings(StarterSettings, overrides=["minutes=0"])


def test_shares_must_add_up() -> None:
    with pytest.raises(ValueError, match=r"add up to 1\.1, not 1"):
        StarterSettings(speech_share=0.5)


def test_a_share_too_small_for_one_clip_is_refused() -> None:
    with pytest.raises(ValueError, match="less than one clip of music_min_s"):
        StarterSettings(minutes=0.5, speech_share=0.7, sound_share=0.2, music_share=0.1)


def test_a_share_of_zero_leaves_a_modality_out() -> None:
    settings = StarterSettings(minutes=0.5, speech_share=0, sound_share=1, music_share=0)
    assert [settings.budget_s(name) for name in ("speech", "sound", "music")] == [0, 30, 0]


def test_clips_must_be_splittable() -> None:
    with pytest.raises(ValueError, match="at least twice sound_min_s"):
        StarterSettings(sound_min_s=3, sound_max_s=5)


@pytest.mark.parametrize("budget_s", [2.0, 3.9, 4.1, 9.0, 17.3, 216.0, 10_800.0])
def test_durations_add_up_within_their_limits(budget_s: float) -> None:
    durations = clip_durations(budget_s, 2.0, 8.0, np.random.default_rng(0))
    assert sum(durations) == pytest.approx(budget_s, abs=0.001 * len(durations))
    assert 2.0 <= min(durations) <= max(durations) <= 8.0


def test_durations_of_nothing_are_none() -> None:
    assert clip_durations(0.0, 2.0, 8.0, np.random.default_rng(0)) == []


def test_durations_vary() -> None:
    durations = clip_durations(216.0, 2.0, 8.0, np.random.default_rng(0))
    assert np.std(durations) > 1


def test_generators_of_other_names_and_seeds_differ() -> None:
    first = generator(StarterSettings(), "sound", 1).random(4)
    assert (generator(StarterSettings(), "sound", 1).random(4) == first).all()
    for other in (
        generator(StarterSettings(), "sound", 2),
        generator(StarterSettings(), "music", 1),
        generator(StarterSettings(seed=1), "sound", 1),
    ):
        assert (other.random(4) != first).any()
