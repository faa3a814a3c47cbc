from __future__ import annotations

from pathlib import Path

import pytest

from model.config import PRESETS
from pipeline.errors import SettingsError
from pipeline.settings import load_settings
from pipeline.storage import Folder
from pipeline.training.settings import TrainSettings
from pipeline.training.setup import build_model, model_config, open_tokenizer
from pipeline.training.shards import TrainShards
from tests.factories.train_shards import LATENT_DIM, SPEAKER_DIM
from tests.factories.training import small_settings

RECIPES = sorted((Path(__file__).parents[3] / "jobs" / "configs").glob("train_*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_valid_and_named_after_its_model(recipe):
    settings = load_settings(TrainSettings, recipe)
    assert settings.model.preset in PRESETS
    _, size, hardware = recipe.stem.split("_")
    assert settings.model.preset == size
    assert settings.engine.use_gpu == (hardware == "gpu")


def test_there_is_a_recipe_for_each_size_of_the_paper():
    assert {path.stem for path in RECIPES} >= {
        "train_tiny_cpu", "train_0.6b_gpu", "train_1.7b_gpu", "train_4b_gpu"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.learning_rat=1", "learning_rat"),
        ("optim.learning_rate=-1", "must be positive"),
        ("feed.modality_weights.speach=1", "speach"),
        ("feed.modality_weights.speech=0", "all 0"),
        ("feed.modality_weights.speech=.inf", "finite"),
        ("engine.zero_stage=4", "zero_stage"),
        ("sample.every=7", "multiple of checkpoint.every"),
        ("feed.condition_dropout=1.5", "condition_dropout"),
        ("engine.use_gpu=true feed.pack_length=500", "multiple of 128"),
    ],
)
def test_wrong_settings_name_the_key(override, message):
    overrides = override.split(" ")
    with pytest.raises(SettingsError, match=message):
        load_settings(TrainSettings, None, overrides)


@pytest.mark.parametrize(
    ("changes", "is_same"),
    [
        ({"engine": {"num_workers": 5, "zero_stage": 3}}, True),
        ({"log_every": 9}, True),
        ({"checkpoint": {"every": 3}}, True),
        ({"feed": {"rows_per_micro_batch": 3}}, True),
        ({"seed": 3}, False),
        ({"feed": {"documents_per_step": 5}}, False),
        ({"optim": {"ema_decay": 0.5}}, False),
        ({"model": {"preset": "0.6b"}}, False),
        ({"stop_weight": 0.2}, False),
    ],
)
def test_identity_is_of_what_the_weights_depend_on(changes, is_same):
    assert (small_settings(**changes).identity() == small_settings().identity()) == is_same


def _config(shards: Path, **model: object):
    settings = small_settings(model=model)
    return model_config(
        settings.model, TrainShards(Folder.at(shards)), open_tokenizer(settings.model)
    )


def test_the_model_takes_its_widths_from_shards_and_tokenizer(small_shards):
    config = _config(small_shards)
    tokenizer = open_tokenizer(small_settings().model)
    assert config.latent_dim == LATENT_DIM
    assert config.speaker_dim == SPEAKER_DIM
    assert config.speaker_id == tokenizer.speaker_id
    assert config.backbone.num_layers == 2, "overrides are nested"
    assert config.backbone.vocab_size == 512, "and leave the rest of the preset"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"latent_dim": 8}, "cannot be set"),
        ({"backbone": {"vocab_size": 100}}, "512 ids and the preset tiny 100 rows"),
        ({"backbone": {"layers": 3}}, "layers"),
        ({"frames_per_block": 0}, "must be positive"),
    ],
)
def test_overrides_that_cannot_work_are_refused(small_shards, overrides, message):
    with pytest.raises(SettingsError, match=message):
        _config(small_shards, overrides=overrides)


def test_an_unknown_preset_names_those_there(small_shards):
    with pytest.raises(SettingsError, match=r"no model preset 'huge'; there are tiny"):
        _config(small_shards, preset="huge")


def test_bytes_on_a_published_vocabulary_are_warned_of(small_shards, caplog):
    _config(small_shards, preset="0.6b")
    assert "151936 rows" in caplog.text


def test_the_model_starts_the_same_for_one_seed_and_holds_the_statistics(small_shards):
    shards = TrainShards(Folder.at(small_shards))
    settings = small_settings()
    config = _config(small_shards)
    models = [build_model(settings, config, shards) for _ in range(2)]
    other = build_model(small_settings(seed=1), config, shards)
    weights = [model.latent_proj.weight for model in (*models, other)]
    assert weights[0].equal(weights[1])
    assert not weights[0].equal(weights[2])
    assert models[0].latent_mean.tolist() == [0.5] * LATENT_DIM
