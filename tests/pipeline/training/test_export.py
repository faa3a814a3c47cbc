from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from jobs import export
from model.bundle.bundle import load_bundle
from model.bundle.request import SynthesisRequest, sampling_defaults
from model.bundle.synthesis import Synthesizer
from model.codec.registry import build_codec, codec_preset, save_codec
from pipeline.errors import IncompleteError, SettingsError
from pipeline.evaluation.held_out import COUNTS
from pipeline.storage import Folder
from pipeline.tracking import Tracker
from pipeline.training.average import averaged_model
from pipeline.training.checkpoint_store import CheckpointStore
from pipeline.training.export import (
    export_run,
    exported_weights,
    run_voices,
)
from pipeline.training.init_from import open_parent, with_architecture
from pipeline.training.rundir import claim_directory, load_voices
from pipeline.training.samples import Samples
from pipeline.training.settings import SampleSettings
from pipeline.training.setup import open_tokenizer, shards_for
from pipeline.training.shards import TrainShards
from tests.factories.bundle import codec_facts
from tests.factories.train_shards import mixed_clips, write_shards
from tests.factories.training import small_settings, training, weights_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(alone, tmp_path_factory):
    """A codec, shards that name it, and a run of two steps."""
    place = tmp_path_factory.mktemp("export")
    save_codec(build_codec(codec_preset("tiny")), place / "codec")
    latent_dim = int(codec_preset("tiny")["latent_dim"])
    codec = codec_facts(place / "codec")
    card = {"codec": codec, "hours": {"by_modality": {"speech": 0.1}}}
    clips = [*mixed_clips(6), *mixed_clips(3, split="validation")]
    write_shards(place / "shards", clips, latent_dim=latent_dim, card=card)
    settings = small_settings(
        optim={"num_steps": 2},
        feed={"pack_length": 160},
        validation={"every": 2, "num_documents": 3},
    )
    shards = TrainShards(Folder.at(place / "shards"))
    claim_directory(Folder.at(place / "run"), settings, shards)
    worker = training(settings, place / "run", place / "shards")
    worker.run()
    return place, weights_of(worker, "average")


def test_the_bundle_holds_the_average_and_its_facts(trained, tmp_path):
    place, average = trained
    card = export_run(Folder.at(place / "run"), place / "codec", tmp_path / "bundle")
    bundle = load_bundle(tmp_path / "bundle")
    for name, parameter in bundle.model.named_parameters():
        assert torch.equal(parameter.detach().flatten(), average[name])
    assert bundle.model.latent_std.unique().tolist() == [2.0]
    assert set(bundle.voices) == {"corpus-0", "corpus-1"}
    assert bundle.card == card
    assert card["step"] == 2
    assert card["shards"]["hours"] == {"by_modality": {"speech": 0.1}}
    assert card["losses"]["loss/total"] > 0
    assert card["validation"]["loss/total"] > 0
    assert card["validation"]["loss/flow/music"] > 0
    request = SynthesisRequest(description="noise", duration_s=0.4, sampling={"num_flow_steps": 1})
    pieces = list(Synthesizer(bundle).stream(request))
    assert sum(piece.shape[-1] for piece in pieces) == 6400


def test_the_bundle_is_sampled_as_the_run_or_the_caller_says(trained, tmp_path):
    place, codec = trained[0], trained[0] / "codec"
    run = Folder.at(place / "run")
    export_run(run, codec, tmp_path / "plain")
    assert load_bundle(tmp_path / "plain").sampling == sampling_defaults({})
    told = {"speech": {"num_flow_steps": 4}, "music": {"temperature": 0.5}}
    export_run(run, codec, tmp_path / "told", sampling=told)
    sampling = load_bundle(tmp_path / "told").sampling
    assert sampling == sampling_defaults(told)
    assert (sampling["speech"].num_flow_steps, sampling["music"].temperature) == (4, 0.5)
    with pytest.raises(ValueError, match="num_flow_steps is 0"):
        export_run(run, codec, tmp_path / "none", sampling={"speech": {"num_flow_steps": 0}})


def test_a_run_says_how_its_bundle_is_sampled():
    assert SampleSettings().sampling() == {}
    told = SampleSettings(num_flow_steps=8).sampling()
    assert told == {name: {"num_flow_steps": 8} for name in ("speech", "sound", "music")}


def test_a_fork_names_its_parent_on_its_card(trained, tmp_path):
    place = trained[0]
    source = Folder.at(place / "run")
    parent = open_parent(source.uri)
    settings = small_settings(
        model={"init_from": source.uri}, optim={"num_steps": 1}, feed={"pack_length": 160}
    )
    settings = with_architecture(settings, parent)
    shards = shards_for(Folder.at(place / "shards"), parent)
    claim_directory(Folder.at(tmp_path / "fork"), settings, shards, parent)
    training(settings, tmp_path / "fork", place / "shards").run()
    card = export_run(Folder.at(tmp_path / "fork"), place / "codec", tmp_path / "bundle")
    of_parent = source.read_json("run.json")["run_id"]
    assert card["run"] != of_parent
    assert card["parent"] == {
        "source": source.uri,
        "run": of_parent,
        "step": 2,
        "digest": parent.digest,
    }
    assert load_bundle(tmp_path / "bundle").card["parent"] == card["parent"]
    again = open_parent(str(tmp_path / "bundle"))
    assert again.run_id == card["run"], "a bundle passes on which run made it"


def test_half_weights_and_fields_of_the_card(trained, tmp_path):
    place, average = trained
    run, about = Folder.at(place / "run"), {"name": "small", "licence": "CC0-1.0"}
    card = export_run(run, place / "codec", tmp_path / "bundle", weights="fp16", about=about)
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.card == card
    assert (card["name"], card["licence"], card["step"]) == ("small", "CC0-1.0", 2)
    for name, parameter in bundle.model.named_parameters():
        torch.testing.assert_close(
            parameter.detach().flatten(), average[name], rtol=2**-10, atol=2**-24
        )
    with pytest.raises(SettingsError, match="the card's losses, step come from the run"):
        export_run(run, place / "codec", tmp_path / "no", about={"step": 1, "losses": {}})
    assert not (tmp_path / "no").exists()


def test_voices_are_chosen_and_described_by_a_recipe(trained, tmp_path):
    place, shards = trained[0], TrainShards(Folder.at(trained[0] / "shards"))
    run = Folder.at(place / "run")
    recipe = {
        "eve": {"speakers": ["*/0"], "description": "A woman speaks."},
        "all": {"speakers": ["corpus/1", "corpus/*"]},
    }
    voices = run_voices(run, shards, recipe)
    export_run(run, place / "codec", tmp_path / "bundle", voices=voices)
    found = load_bundle(tmp_path / "bundle").voices
    assert {name: voice.description for name, voice in found.items()} == {
        "eve": "A woman speaks.",
        "all": "",
    }
    known = load_voices(run)
    assert torch.equal(found["eve"].embedding, known["corpus-0"].embedding)
    # A clip that several patterns name counts once.
    rows = [n for n in range(len(shards)) if shards.embeddings.of(n) is not None]
    mean = torch.tensor(np.mean([shards.embeddings.of(n) for n in rows], axis=0))
    torch.testing.assert_close(found["all"].embedding, mean / mean.norm())

    with pytest.raises(SettingsError, match=r"voice 'eve' names the speaker '\*/9'.*corpus/0"):
        run_voices(run, shards, {"eve": {"speakers": ["*/9"]}})
    with pytest.raises(SettingsError, match="voice 'eve'"):
        run_voices(run, shards, {"eve": {"speaker": ["*/0"]}})
    write_shards(tmp_path / "other", mixed_clips(3), card={"note": "other"})
    with pytest.raises(SettingsError, match="trained on other shards"):
        run_voices(run, TrainShards(Folder.at(tmp_path / "other")), recipe)


def test_the_command_puts_voices_and_measures_on_the_card(trained, tmp_path, capsys):
    place = trained[0]
    recipe, results = tmp_path / "voices.yaml", tmp_path / "results.json"
    recipe.write_text("eve: {speakers: ['*/0'], description: A woman speaks.}\n")
    added = tmp_path / "more_voices.yaml"
    added.write_text("adam: {speakers: ['*/1']}\n")
    weights = exported_weights(Folder.at(place / "run"))
    estimate = {"value": 0.25, "low": 0.125, "high": 0.5, "n": 40}
    forms = dict.fromkeys(("real", "reconstructed", "generated"), estimate)
    measure = {"modality": "speech", "name": "digits", "better": "higher", "note": "", **forms}
    counts = dict.fromkeys(COUNTS, 0) | {"test": 4}
    measured = {
        "weights": weights,
        "bundle_digest": "d" * 64,
        "settings": {"max_duration_s": 8.0, "seed": 3},
        "clips": {"speech": counts},
        "measures": [measure],
    }
    results.write_text(json.dumps(measured))
    words = ["--run", str(place / "run"), "--codec", str(place / "codec")]
    words += ["--output", str(tmp_path / "bundle"), "--results", str(results)]
    voices = ["--voices", str(recipe), str(added), "--shards", str(place / "shards")]
    assert export.main([*words, *voices]) == 0
    assert set(load_bundle(tmp_path / "bundle").voices) == {"eve", "adam"}
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert "### Measures of speech" in card
    assert "| digits | 40 | 0.25 [0.125, 0.5] |" in card
    assert "| eve | A woman speaks. |" in card

    results.write_text(json.dumps(measured | {"weights": weights | {"step": 1}}))
    assert export.main(words) == 1
    assert "evaluate an export of the same run and step" in capsys.readouterr().err


def test_another_codec_is_refused(trained, tmp_path):
    save_codec(build_codec(codec_preset("tiny"), seed=1), tmp_path / "codec")
    with pytest.raises(SettingsError, match="the shards were encoded with"):
        export_run(Folder.at(trained[0] / "run"), tmp_path / "codec", tmp_path / "bundle")


def test_a_missing_step_or_run_is_named(trained, tmp_path):
    place = trained[0]
    with pytest.raises(IncompleteError, match=r"no complete checkpoint of 9.*\[2\]"):
        export_run(Folder.at(place / "run"), place / "codec", tmp_path / "bundle", step=9)
    with pytest.raises(IncompleteError, match="no run directory"):
        export_run(Folder.at(tmp_path / "nowhere"), place / "codec", tmp_path / "bundle")


def _samples(place: Path, **values: object) -> Samples:
    settings = SampleSettings(every=2, num_flow_steps=1, max_seconds=0.4, **values)
    shards = TrainShards(Folder.at(place / "shards"))
    tokenizer = open_tokenizer(small_settings().model)
    return Samples(settings, shards, place / "codec", tokenizer, torch.device("cpu"))


def test_samples_of_every_modality_are_written_beside_their_spectrograms(trained, tmp_path):
    place = trained[0]
    store = CheckpointStore(Folder.at(place / "run" / "checkpoints"))
    _samples(place).make(store, 2, Folder.at(tmp_path), Tracker(None))
    names = sorted(path.name for path in (tmp_path / "samples" / "step_00000002").iterdir())
    stems = {name.split(".")[0] for name in names}
    assert {"01-sound", "02-music"} <= stems
    assert all(f"{stem}.png" in names and f"{stem}.wav" in names for stem in stems)
    waveform, rate = soundfile.read(tmp_path / "samples" / "step_00000002" / "01-sound.wav")
    assert rate == 16_000
    assert 0 < len(waveform) <= 6400
    assert np.isfinite(waveform).all()


def test_samples_follow_given_descriptions(trained, tmp_path):
    place = trained[0]
    store = CheckpointStore(Folder.at(place / "run" / "checkpoints"))
    _samples(place, descriptions=("rain", "wind")).make(
        store, 2, Folder.at(tmp_path), Tracker(None)
    )
    assert len(list(tmp_path.rglob("*.wav"))) == 2


def test_the_model_of_a_checkpoint_is_ready_to_generate(trained):
    store = CheckpointStore(Folder.at(trained[0] / "run" / "checkpoints"))
    model = averaged_model(store, 2)
    assert not model.training
    assert model.dtype == torch.float32
