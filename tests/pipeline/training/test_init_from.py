"""A run starts from a bundle or another run: the same weights, the same scale of latents."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from model.bundle.bundle import BundleError, load_bundle
from model.text import ByteTokenizer
from pipeline.errors import SettingsError
from pipeline.storage import Folder
from pipeline.training.feed import Feed
from pipeline.training.init_from import check_parent, find_parent, open_parent, with_architecture
from pipeline.training.parent import noted_parent
from pipeline.training.rundir import claim_directory, load_run_settings, load_voices
from pipeline.training.settings import TrainSettings
from pipeline.training.setup import build_model, model_config, shards_for
from tests.factories.bundle import codec_facts, codec_latent_dim, write_bundle
from tests.factories.train_shards import FakeClip, mixed_clips, write_shards
from tests.factories.training import save, small_settings, training, weights_of

PLAIN = [FakeClip(name=f"clip-{number}") for number in range(4)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, and shards of its codec whose own statistics are others."""
    root = tmp_path_factory.mktemp("parent")
    bundle = write_bundle(root)
    _shards(root / "shards", bundle)
    return root


def _shards(path: Path, bundle: Path, clips: list[FakeClip] = PLAIN, **codec: Any) -> Folder:
    card = {"codec": codec_facts(bundle / "codec") | codec}
    return write_shards(path, clips, latent_dim=codec_latent_dim(), card=card)


def _settings(init_from: object, **changes: Any) -> TrainSettings:
    values: dict[str, Any] = {
        "model": {"init_from": str(init_from)},
        "feed": {"documents_per_step": 2, "pack_length": 160},
        "tracking": {"is_enabled": False},
    }
    return TrainSettings.model_validate(values | changes)


def _resolved(place: Path) -> tuple[Any, TrainSettings, Any]:
    parent = open_parent(str(place / "bundle"))
    settings = with_architecture(_settings(place / "bundle"), parent)
    return parent, settings, shards_for(Folder.at(place / "shards"), parent)


def test_the_model_has_weights_architecture_and_statistics_of_the_bundle(place: Path) -> None:
    parent, settings, shards = _resolved(place)
    config = model_config(settings.model, shards, ByteTokenizer(), parent)
    model = build_model(settings, config, shards, parent=parent)
    bundle = load_bundle(place / "bundle")
    assert config == bundle.model.config
    expected = bundle.model.state_dict()
    actual = model.state_dict()
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[name], value) for name, value in expected.items())
    assert actual["latent_std"].tolist() != [2.0] * config.latent_dim, "those of the shards"


def test_the_feed_normalises_as_the_model_does(place: Path) -> None:
    parent, settings, shards = _resolved(place)
    bundle = load_bundle(place / "bundle")
    mean = torch.linspace(-1, 1, bundle.model.config.latent_dim)
    std = torch.linspace(0.5, 3, bundle.model.config.latent_dim)
    shards = shards.with_latent_stats(mean.tolist(), std.tolist())
    config = model_config(settings.model, shards, ByteTokenizer(), parent)
    model = build_model(settings, config, shards, parent=parent)
    assert torch.equal(model.latent_mean, mean)
    assert torch.equal(model.latent_std, std)
    feed = settings.feed.model_copy(update={"importance_power": 1.0})  # ignored, and no error
    sampler = Feed(shards, feed, config, ByteTokenizer(), 0)._sampler
    raw = torch.from_numpy(shards.silence)
    torch.testing.assert_close(sampler._silence, model.normalise(raw))


def test_settings_that_were_resolved_build_the_same_model_again(place: Path) -> None:
    parent, settings, shards = _resolved(place)
    assert with_architecture(settings, parent) == settings
    assert settings.model.overrides["backbone"]["hidden_dim"] == 32
    assert model_config(settings.model, shards, ByteTokenizer(), parent) == parent.config


def test_the_run_notes_its_parent_and_goes_on_without_it(place: Path, tmp_path: Path) -> None:
    parent, settings, shards = _resolved(place)
    run = Folder.at(tmp_path / "run")
    claim = claim_directory(run, settings, shards, parent)
    assert claim["parent"] == parent.digest == load_bundle(place / "bundle").digest
    assert set(load_voices(run)) == {"ada"}
    assert noted_parent(run) == parent
    assert load_run_settings(run) == settings

    moved = parent.init_from + "-moved"
    (place / "bundle").rename(moved)
    try:
        assert find_parent(run, parent.init_from) == parent, "noted, so it may be gone"
        again = find_parent(run, moved)
        assert claim_directory(run, settings, shards, again)["run_id"] == claim["run_id"]
    finally:
        Path(moved).rename(place / "bundle")
    with pytest.raises(SettingsError, match=r"was started with parent .* now gives no parent"):
        claim_directory(run, settings, shards)


def test_other_weights_are_another_run(place: Path, tmp_path: Path) -> None:
    parent, settings, shards = _resolved(place)
    run = Folder.at(tmp_path / "run")
    claim_directory(run, settings, shards, parent)
    other = find_parent(run, str(write_bundle(tmp_path, seed=1)))
    assert other is not None
    with pytest.raises(SettingsError, match=r"with parent .* model.init_from now gives parent"):
        claim_directory(run, settings, shards, other)


def test_a_run_without_parent_is_not_taken_over(place: Path, tmp_path: Path) -> None:
    parent, settings, shards = _resolved(place)
    run = Folder.at(tmp_path / "run")
    claim_directory(run, settings, shards)
    with pytest.raises(SettingsError, match="started with no parent"):
        claim_directory(run, settings, shards, parent)


def test_another_codec_is_refused(place: Path, tmp_path: Path) -> None:
    parent = open_parent(str(place / "bundle"))
    folder = _shards(tmp_path, place / "bundle", digest="f" * 64)
    with pytest.raises(SettingsError, match=r"codec ffffffffffff.* know the latents of"):
        check_parent(parent, shards_for(folder, parent), ByteTokenizer())


def test_latents_of_another_width_are_refused(place: Path, tmp_path: Path) -> None:
    parent = open_parent(str(place / "bundle"))
    folder = write_shards(tmp_path, PLAIN)
    with pytest.raises(SettingsError, match="do not fit the 4 of"):
        shards_for(folder, parent)


def test_voices_of_another_width_are_refused(place: Path, tmp_path: Path) -> None:
    parent = open_parent(str(place / "bundle"))
    folder = _shards(tmp_path, place / "bundle", mixed_clips(3))
    with pytest.raises(SettingsError, match=r"width 6 and the model of .* takes 5"):
        check_parent(parent, shards_for(folder, parent), ByteTokenizer())


def test_another_tokenizer_is_refused(place: Path) -> None:
    class OtherIds(ByteTokenizer):
        name = "shifted"

        def encode(self, text: str) -> list[int]:
            return [value ^ 1 for value in super().encode(text)]

    parent, _, shards = _resolved(place)
    with pytest.raises(SettingsError, match=r"model.tokenizer is 'shifted' .* 'bytes'"):
        check_parent(parent, shards, OtherIds())


def test_another_architecture_is_named(place: Path) -> None:
    parent, _, shards = _resolved(place)
    settings = small_settings(model={"init_from": parent.init_from}).model
    overrides = {"frames_per_block": 2, "head": {"num_layers": 3}}
    settings = settings.model_copy(update={"overrides": overrides})
    with pytest.raises(SettingsError, match=r"frames_per_block: 2 in the settings, 4 in the wei"):
        model_config(settings, shards, ByteTokenizer(), parent)


def test_weights_that_changed_under_a_run_are_refused(place: Path, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "first")
    parent = open_parent(str(bundle))
    settings = with_architecture(_settings(bundle), parent)
    shards = shards_for(Folder.at(place / "shards"), parent)
    write_bundle(tmp_path / "second", seed=1).rename(tmp_path / "other")
    bundle.rename(tmp_path / "gone")
    (tmp_path / "other").rename(bundle)
    with pytest.raises(SettingsError, match="this run was started from"):
        build_model(settings, parent.config, shards, parent=parent)
    (bundle / "model.safetensors").write_bytes(b"")
    with pytest.raises(BundleError, match="was altered"):
        open_parent(str(bundle))


def test_what_is_neither_bundle_nor_run_is_named(tmp_path: Path) -> None:
    for name in (tmp_path / "nowhere", f"{tmp_path}/nowhere@3", tmp_path):
        with pytest.raises(SettingsError, match=r"neither a bundle .* nor a run .* RUN@STEP"):
            open_parent(str(name))


def test_published_weights_beside_a_parent_are_refused() -> None:
    with pytest.raises(ValueError, match="pretrained 'a' and init_from 'b' both name weights"):
        TrainSettings.model_validate({"model": {"pretrained": "a", "init_from": "b"}})


def test_the_driver_refuses_before_any_worker_starts(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from jobs import train

    def start(*args: object, **kwargs: object) -> None:
        raise AssertionError("workers were started")

    monkeypatch.setattr("pipeline.training.driver.run_group", start)
    monkeypatch.setattr("pipeline.training.driver.ray_cluster", contextlib.nullcontext)
    folder = _shards(tmp_path / "shards", place / "bundle", digest="f" * 64)
    words = ["--shards", folder.uri, "--output", str(tmp_path / "run")]
    assert train.main([*words, "--init-from", str(place / "bundle")]) == 1
    assert "encode the clips with that codec" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_parent_is_logged_to_mlflow(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.training.run import train_run

    class OpenedError(Exception):
        pass

    def open_run(*arguments: object) -> None:
        raise OpenedError(arguments[-1])

    monkeypatch.setattr("pipeline.training.run.open_run", open_run)
    parent, settings, _ = _resolved(place)
    parent_run = load_bundle(place / "bundle").card.get("run")
    with pytest.raises(OpenedError) as caught:
        train_run(settings, str(place / "shards"), str(tmp_path / "run"))
    (tags,) = caught.value.args
    assert tags["parent_source"] == parent.source
    assert tags["parent_digest"] == parent.digest
    assert tags.get("parent_run") == parent_run


@pytest.mark.slow
@pytest.mark.parametrize("zero_stage", [2, 3])
def test_a_frozen_embedding_is_that_of_the_parent_after_a_resume_too(
    alone: None, place: Path, tmp_path: Path, zero_stage: int
) -> None:
    parent, settings, shards = _resolved(place)
    engine = settings.engine.model_copy(update={"precision": "fp32", "zero_stage": zero_stage})
    optim = dataclasses.replace(settings.optim, embedding_multiplier=0.0)
    settings = settings.model_copy(update={"engine": engine, "optim": optim})
    claim_directory(Folder.at(tmp_path), settings, shards, parent)
    save(training(settings, tmp_path, place / "shards"), 1)
    resumed = training(settings, tmp_path, place / "shards")
    assert resumed.start == 1
    embedding = resumed.engine.module.backbone.embed_tokens.weight
    expected = load_bundle(place / "bundle").model.backbone.embed_tokens.weight
    with resumed.engine.gathered([embedding]):
        assert torch.equal(embedding, expected)


@pytest.mark.slow
def test_a_run_starts_from_the_average_of_another_and_resumes_without_it(
    alone: None, small_shards: Path, tmp_path: Path
) -> None:
    settings = small_settings(optim={"num_steps": 2})
    source = tmp_path / "first"
    shards = shards_for(Folder.at(small_shards), None)
    claim_directory(Folder.at(source), settings, shards)
    first = training(settings, source, small_shards)
    first.run()
    average, weights = weights_of(first, "average"), weights_of(first)
    assert not all(torch.equal(average[name], weights[name]) for name in weights)

    parent = open_parent(f"{source}@2")
    assert (parent.step, parent.source) == (2, str(source))
    assert parent.run_id == json.loads((source / "run.json").read_text())["run_id"]
    with pytest.raises(Exception, match="no complete checkpoint of 9"):
        open_parent(f"{source}@9")
    settings = small_settings(model={"init_from": f"{source}@2"}, optim={"num_steps": 3})
    settings = with_architecture(settings, parent)
    assert parent.config == model_config(settings.model, shards, ByteTokenizer(), parent)
    run = Folder.at(tmp_path / "second")
    claim_directory(run, settings, shards_for(Folder.at(small_shards), parent), parent)
    second = training(settings, tmp_path / "second", small_shards)
    assert second.start == 0
    began = weights_of(second)
    assert all(torch.equal(began[name], average[name]) for name in average)
    second.run()
    assert not all(torch.equal(weights_of(second)[n], average[n]) for n in average)

    source.rename(tmp_path / "gone")
    assert find_parent(run, f"{source}@2") == parent
    assert training(settings, tmp_path / "second", small_shards).start == 3
