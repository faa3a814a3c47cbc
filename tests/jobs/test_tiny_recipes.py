"""The recipes of the shipped model fit together."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from model.bundle.request import sampling_defaults
from pipeline.data.starter.voices import SPEAKERS
from pipeline.settings import load_settings, read_recipe
from pipeline.training.mixture import with_mixture
from pipeline.training.settings import TrainSettings
from pipeline.training.voices import VoiceChoice

CONFIGS = Path(__file__).parents[2] / "jobs" / "configs"


def test_every_speaker_of_the_corpus_is_a_voice_with_a_description_of_the_corpus() -> None:
    recipe = read_recipe(CONFIGS / "voices_tiny.yaml")
    spoken = {speaker.name: speaker for speaker in SPEAKERS if speaker.engine == "flite"}
    assert set(recipe) == set(spoken)
    for name, value in recipe.items():
        choice, speaker = VoiceChoice.model_validate(value), spoken[name]
        assert choice.speakers == [f"*/{name}"]
        person = {"female": "woman", "male": "man"}[speaker.sex]
        for words in (f"{speaker.accent} {person}", f"{speaker.timbre} voice"):
            assert words in choice.description


def test_the_voices_of_recordings_are_described_and_have_names_of_their_own() -> None:
    added = read_recipe(CONFIGS / "voices_tiny_recordings.yaml")
    assert added
    assert not set(added) & set(read_recipe(CONFIGS / "voices_tiny.yaml"))
    assert all(VoiceChoice.model_validate(value).description for value in added.values())


def test_the_training_weighs_kinds_of_text_that_the_corpus_holds() -> None:
    corpus = read_recipe(CONFIGS / "corpus_tiny.yaml")
    kinds = {f"speech-{kind}" for kind in corpus["speech"]["kinds"]}
    plain = load_settings(TrainSettings, CONFIGS / "train_tiny_shipped.yaml")
    mixed = with_mixture(plain, CONFIGS / "mixture_tiny_recordings.yaml")
    for settings in (plain, mixed):
        feed = settings.feed
        assert feed.corpus_weights
        assert feed.modality_weights is not None
        assert sum(feed.modality_weights.values()) == pytest.approx(1)
    assert set(plain.feed.corpus_weights) <= kinds
    # The recordings come in addition.
    assert {*plain.feed.corpus_weights} <= {*mixed.feed.corpus_weights}


def test_the_sampling_is_of_every_modality() -> None:
    recipe = read_recipe(CONFIGS / "sampling_tiny.yaml")
    assert set(recipe) == set(sampling_defaults(recipe))


def test_the_card_has_what_a_reader_needs() -> None:
    card = yaml.safe_load((CONFIGS / "card_tiny.yaml").read_text("utf-8"))
    assert {"name", "licence", "data", "limits"} <= set(card)
