"""The minutes become clips whose durations add up, or the settings are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.starter.settings import (
    MusicSettings,
    SoundSettings,
    SpeechSettings,
    StarterSettings,
    clip_durations,
    generator,
    positive,
)
from pipeline.errors import SettingsError
from pipeline.settings import load_settings


@pytest.mark.parametrize("minutes", [0, -1, 0.49, 6001, float("inf"), float("nan")])
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
    with pytest.raises(ValueError, match=r"less than one clip of music\.min_s"):
        StarterSettings(minutes=0.5, speech_share=0.7, sound_share=0.2, music_share=0.1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kinds": {"sonnet": 1}}, "Input should be 'digit', 'digits'"),
        ({"engines": {"festival": 1}}, "Input should be 'espeak' or 'flite'"),
        ({"languages": {"tlh": 1}}, "Input should be 'en', 'de'"),
        ({"kinds": {"digit": -1}}, "greater than or equal to 0"),
        ({"kinds": {"digit": 0, "word": 0}}, "all weights are 0"),
        ({"languages": {}}, "all weights are 0"),
        ({"kinds": {"open": 1}}, "name a text file with sentences=FILE"),
        (
            {"kinds": {"open": 1, "word": 1}, "sentences": "a.txt", "languages": {"de": 1}},
            r"add languages\.en",
        ),
        (
            {
                "kinds": {"open": 1, "word": 0},
                "sentences": "a.txt",
                "languages": {"de": 1, "en": 1},
            },
            "holds only open",
        ),
        ({"room_share": 1.1}, "less than or equal to 1"),
    ],
)
def test_speech_that_cannot_be_made_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpeechSettings.model_validate(values)


def test_weights_are_scaled_and_zeros_left_out() -> None:
    assert positive({"a": 3.0, "b": 0.0, "c": 1.0}) == {"a": 0.75, "c": 0.25}
    assert positive({}) == {}


def test_a_recipe_replaces_whole_tables_of_weights() -> None:
    settings = load_settings(StarterSettings, overrides=["speech.kinds.word=2"])
    assert settings.speech.kinds == {"word": 2}
    assert settings.speech.languages == SpeechSettings().languages


def test_a_share_of_zero_leaves_a_modality_out() -> None:
    settings = StarterSettings(minutes=0.5, speech_share=0, sound_share=1, music_share=0)
    assert [settings.budget_s(name) for name in ("speech", "sound", "music")] == [0, 30, 0]


def test_clips_must_be_splittable() -> None:
    with pytest.raises(ValueError, match=r"at least twice sound\.min_s"):
        SoundSettings(min_s=3, max_s=5)
    with pytest.raises(ValueError, match=r"at least twice music\.min_s"):
        MusicSettings(min_s=8, max_s=12)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: SoundSettings(classes=("rain", "snow")),
            "at least one of rain, .*unknown are snow",
        ),
        (lambda: SoundSettings(classes=()), "at least one of rain, "),
        (lambda: SoundSettings(classes=("rain", "rain")), "at most once"),
        (lambda: SoundSettings(min_s=1, max_s=3), r"sea_waves needs 4 s.*sound\.classes"),
        (lambda: MusicSettings(styles=("polka",)), "at least one of ambient, .*unknown are polka"),
    ],
)
def test_sounds_and_music_that_do_not_exist_are_refused(
    build: Callable[[], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_the_recipe_of_the_shipped_model_asks_only_for_a_text(tmp_path: Path) -> None:
    recipe = Path(__file__).parents[4] / "jobs" / "configs" / "corpus_tiny.yaml"
    with pytest.raises(SettingsError, match="sentences=FILE"):
        load_settings(StarterSettings, recipe)
    settings = load_settings(StarterSettings, recipe, [f"speech.sentences={tmp_path / 'a.txt'}"])
    assert len(settings.sound.classes) == 20
    assert len(settings.music.styles) == 6
    assert settings.speech.engines == {"flite": 1}


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
