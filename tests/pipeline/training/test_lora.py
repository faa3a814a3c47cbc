"""Adapters on trained weights: what is trained, kept, resumed, merged and exported."""

from __future__ import annotations

import builtins
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model.audiocalm import AudioCALM
from model.bundle.bundle import load_bundle
from model.bundle.request import SynthesisRequest
from model.bundle.synthesis import Synthesizer
from model.cost import sizes
from model.optim import OptimConfig, parameter_groups
from pipeline.errors import DamagedError, SettingsError
from pipeline.storage import Folder
from pipeline.training.average import averaged_model
from pipeline.training.checkpoint_store import CheckpointStore
from pipeline.training.export import export_run
from pipeline.training.init_from import open_parent, with_architecture
from pipeline.training.loop import Training
from pipeline.training.lora import add_adapters, filled_from_base, num_trained
from pipeline.training.rundir import CHECKPOINTS, claim_directory
from pipeline.training.settings import LoraSettings, TrainSettings
from pipeline.training.setup import shards_for
from tests.factories.bundle import bundle_config, codec_facts, codec_latent_dim, write_bundle
from tests.factories.train_shards import FakeClip, write_shards
from tests.factories.training import run_workers, save, train_two_steps, training, weights_of

LORA = {"rank": 2, "alpha": 4}
CLIPS = [
    FakeClip(name="words", modality="speech", transcript="one two", num_frames=10),
    FakeClip(name="noise", num_frames=10),
    FakeClip(name="held-out", num_frames=10, split="validation"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with random weights, and shards of its codec."""
    root = tmp_path_factory.mktemp("lora")
    bundle = write_bundle(root)
    codec = codec_facts(bundle / "codec")
    write_shards(root / "shards", CLIPS, latent_dim=codec_latent_dim(), card={"codec": codec})
    return root


def _settings(init_from: Path, lora: dict[str, Any] | None = LORA, **changes: Any) -> TrainSettings:
    values: dict[str, Any] = {
        "model": {"init_from": str(init_from), "lora": lora},
        "feed": {"documents_per_step": 2, "pack_length": 160},
        "optim": {"num_steps": 4, "warmup_steps": 1, "learning_rate": 1e-2, "ema_decay": 0.9},
        "checkpoint": {"every": 2},
        "validation": {"every": 4, "num_documents": 1},
        "engine": {"precision": "fp32"},
        "log_every": 1,
        "tracking": {"is_enabled": False},
    }
    settings = TrainSettings.model_validate(values | changes)
    return with_architecture(settings, open_parent(str(init_from)))


def _started(settings: TrainSettings, run: Path, place: Path) -> Training:
    parent = open_parent(str(settings.model.init_from))
    shards = shards_for(Folder.at(place / "shards"), parent)
    claim_directory(Folder.at(run), settings, shards, parent)
    return training(settings, run, place / "shards")


@pytest.fixture(scope="module")
def trained(alone: None, place: Path) -> tuple[Training, Path]:
    """A run of four steps, validated at the last, and its directory."""
    worker = _started(_settings(place / "bundle"), place / "run", place)
    worker.run()
    return worker, place / "run"


def _store(run: Path) -> CheckpointStore:
    return CheckpointStore(Folder.at(run).child(CHECKPOINTS))


def _base_of(model: nn.Module) -> dict[str, Tensor]:
    """Weights below the adapters, by the names that they have without them."""
    return {
        name.replace(".base_layer.", "."): parameter.detach()
        for name, parameter in model.named_parameters()
        if ".lora_" not in name
    }


def _same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


@pytest.mark.slow
def test_adapters_are_trained_and_the_weights_below_keep_every_bit(
    trained: tuple[Training, Path], place: Path
) -> None:
    worker, run = trained
    parent = dict(load_bundle(place / "bundle").model.named_parameters())
    assert _same(_base_of(worker.engine.module), parent)
    with filled_from_base(_store(run), model := AudioCALM(bundle_config())) as fill:
        for module in model.modules():
            fill(module)
    assert _same(dict(model.named_parameters()), parent), "the copy that the run keeps"
    adapters = weights_of(worker)
    assert all(".lora_" in name for name in adapters)
    seconds = {name: value for name, value in adapters.items() if ".lora_B." in name}
    assert all(bool((value != 0).any()) for value in seconds.values()), "they started at zero"
    for part in ("backbone.layers.1.mlp.", "backbone.layers.0.expert.", "flow_head.", "stop_head."):
        assert any(name.startswith(part) for name in seconds)


@pytest.mark.slow
def test_optimiser_states_and_checkpoints_hold_the_adapters_alone(
    trained: tuple[Training, Path], place: Path, tmp_path: Path
) -> None:
    worker, run = trained
    whole = _started(_settings(place / "bundle", lora=None), tmp_path / "run", place)
    save(whole, 0)

    def states(held: Training) -> int:
        partitions = held.engine.partitions
        flats = [*partitions.weights, *partitions.moments("exp_avg")]
        return sum(len(flat) for flat in [*flats, *partitions.moments("exp_avg_sq")])

    def covered(held: Training) -> int:
        return sum(stretch.size for stretch in held.engine.partitions.stretches)

    def stored(folder: Path, step: int) -> int:
        at = folder / "checkpoints" / f"step_{step:08d}"
        return sum(path.stat().st_size for path in at.glob("*.safetensors"))

    adapters = num_trained(bundle_config(), LoraSettings(**LORA))
    assert covered(worker) == adapters
    assert covered(whole) == sizes(bundle_config()).total
    assert states(worker) < states(whole) / 4
    assert stored(run, 4) < stored(tmp_path / "run", 0) / 4
    summary = json.loads((run / "summary.json").read_text())
    assert summary["num_trained"] == adapters
    assert summary["num_parameters"] == adapters + sizes(bundle_config()).total


@pytest.mark.slow
def test_a_run_goes_on_bit_for_bit_without_the_weights_it_started_from(
    trained: tuple[Training, Path], place: Path, tmp_path: Path
) -> None:
    worker, run = trained
    shutil.copytree(run, tmp_path / "run")
    _store(tmp_path / "run").remove(4)
    settings = _settings(place / "bundle")
    (place / "bundle").rename(place / "away")
    try:
        resumed = training(settings, tmp_path / "run", place / "shards")
        assert resumed.start == 2
        resumed.run()
    finally:
        (place / "away").rename(place / "bundle")
    assert _same(weights_of(resumed), weights_of(worker))
    assert _same(weights_of(resumed, "average"), weights_of(worker, "average"))
    assert _same(_base_of(resumed.engine.module), _base_of(worker.engine.module))


@pytest.mark.slow
def test_the_merged_average_gives_the_output_of_the_adapted_model(
    trained: tuple[Training, Path], place: Path
) -> None:
    worker, run = trained
    adapted = load_bundle(place / "bundle").model
    base = {name: value.clone() for name, value in adapted.state_dict().items()}
    add_adapters(adapted, LoraSettings(**LORA))
    average = weights_of(worker, "average")
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if name in average:
                parameter.copy_(average[name].view_as(parameter))
    merged = averaged_model(_store(run), 4)
    assert merged.state_dict().keys() == base.keys(), "an ordinary model"
    assert all(parameter.requires_grad for parameter in merged.parameters())
    batch = worker.feed.batch(0).micro_batches[0]
    with torch.no_grad():
        expected, found = adapted.eval()(batch), merged(batch)
        merged.load_state_dict(base)
        before = merged(batch)
    for name in ("velocity", "stop_logit"):
        value = getattr(expected, name)
        torch.testing.assert_close(getattr(found, name), value, atol=1e-5, rtol=0)
        assert (getattr(before, name) - value).abs().max() > 1e-3, "the adapters do something"


@pytest.mark.slow
def test_the_bundle_is_an_ordinary_one_whose_card_states_the_adapters(
    trained: tuple[Training, Path], place: Path, tmp_path: Path
) -> None:
    run = trained[1]
    card = export_run(Folder.at(run), place / "bundle" / "codec", tmp_path / "bundle")
    assert card["lora"] == LORA | {"targets": None}
    assert card["parent"]["digest"] == open_parent(str(place / "bundle")).digest
    assert card["validation"]["loss/flow/sound"] > 0
    bundle = load_bundle(tmp_path / "bundle")
    assert _same(bundle.model.state_dict(), averaged_model(_store(run), 4).state_dict())
    assert set(bundle.voices) == {"ada"}, "the voice of the parent"
    request = SynthesisRequest(description="noise", duration_s=0.4, sampling={"num_flow_steps": 1})
    pieces = list(Synthesizer(bundle).stream(request))
    assert sum(piece.shape[-1] for piece in pieces) == 6400


@pytest.mark.slow
def test_a_run_with_adapters_is_a_parent_like_any_other(
    trained: tuple[Training, Path], place: Path, tmp_path: Path
) -> None:
    run = trained[1]
    merged = dict(averaged_model(_store(run), 4).named_parameters())
    whole = _started(_settings(run, lora=None), tmp_path / "whole", place)
    assert _same(dict(whole.engine.module.named_parameters()), merged)
    further = _started(_settings(run), tmp_path / "further", place)
    assert _same(_base_of(further.engine.module), merged)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"zero_stage": 3}, {"recompute_layers": True}])
def test_other_engines_train_the_same_adapters(
    trained: tuple[Training, Path], place: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    settings = _settings(place / "bundle", engine={"precision": "fp32"} | changes)
    other = _started(settings, tmp_path / "run", place)
    other.run()
    expected = weights_of(trained[0])
    found = weights_of(other)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        # float32 sums in another order
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=0)
    again = training(settings, tmp_path / "run", place / "shards")
    assert again.start == 4
    assert _same(weights_of(again), found)


@pytest.mark.nightly
def test_two_workers_share_the_adapters_and_train_them_like_one(
    alone: None, place: Path, tmp_path: Path
) -> None:
    settings = _settings(place / "bundle", engine={"zero_stage": 3, "precision": "fp32"})
    one = _started(settings, tmp_path / "one", place)
    for step in range(2):
        one.step(one.feed.batch(step))
    parent = open_parent(str(place / "bundle"))
    shards = shards_for(Folder.at(place / "shards"), parent)
    claim_directory(Folder.at(tmp_path / "two"), settings, shards, parent)
    values = settings.model_dump(mode="json")
    places = tmp_path / "two", place / "shards"
    two = run_workers(train_two_steps, 2, tmp_path / "group", values, *places)["weights"]
    expected = weights_of(one)
    assert two.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(two[name], value, atol=1e-5, rtol=0)
    again = training(settings, tmp_path / "two", place / "shards")
    assert again.start == 2
    assert _same(weights_of(again), two)


@pytest.mark.slow
def test_bf16_rounds_the_forward_pass_and_not_the_weights_that_are_kept(
    alone: None, place: Path, tmp_path: Path
) -> None:
    settings = _settings(place / "bundle", engine={"precision": "bf16"}, optim={"num_steps": 1})
    worker = _started(settings, tmp_path / "run", place)
    assert worker.engine.module.latent_proj.weight.dtype == torch.bfloat16
    worker.run()
    found = dict(averaged_model(_store(tmp_path / "run"), 1).named_parameters())
    parent = dict(load_bundle(place / "bundle").model.named_parameters())
    name = "latent_proj.weight"
    assert torch.equal(found[name], parent[name]), "without an adapter"
    assert not torch.equal(parent[name], parent[name].bfloat16().float())


@pytest.mark.slow
def test_weights_below_that_were_altered_are_refused(
    trained: tuple[Training, Path], place: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained[1], tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "base" / "whole.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedError, match="was altered after it was written"):
        averaged_model(_store(tmp_path / "run"), 4)


def test_adapters_get_the_rate_of_new_modules() -> None:
    model = AudioCALM(bundle_config())
    add_adapters(model, LoraSettings(targets=("q_proj",)))
    groups = parameter_groups(model, OptimConfig(backbone_multiplier=0.1))
    assert [group["name"] for group in groups] == ["new_decay", "new_plain"], "a row is no matrix"
    assert {group["multiplier"] for group in groups} == {1.0}


def test_named_targets_and_the_heads_that_read_their_states_get_adapters() -> None:
    model = AudioCALM(bundle_config())
    add_adapters(model, LoraSettings(rank=3, targets=("q_proj", "mlp.up_proj")))
    adapted = {
        name.split(".lora_")[0]
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    own = {f"backbone.layers.{n}.{x}" for n in (0, 1) for x in ("self_attn.q_proj", "mlp.up_proj")}
    assert own < adapted, "but not those of the expert"
    assert all(name.startswith("stop_head.") for name in adapted - own)
    assert adapted - own


@pytest.mark.parametrize("target", ["q_prj", "layers", "norm", "embed_tokens", "clean_type"])
def test_a_target_that_is_no_linear_map_is_named_with_those_there_are(target: str) -> None:
    settings = LoraSettings(targets=("q_proj", target))
    with pytest.raises(SettingsError, match=rf"'{target}' and no linear .* are .*q_proj"):
        num_trained(bundle_config(), settings)


def test_a_target_that_is_none_is_refused_before_any_worker_starts(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from jobs import train

    def start(*args: object, **kwargs: object) -> None:
        raise AssertionError("workers were started")

    monkeypatch.setattr("pipeline.training.driver.run_group", start)
    words = ["--shards", str(place / "shards"), "--output", str(tmp_path / "run")]
    words += ["--init-from", str(place / "bundle"), "--set", "model.lora.targets=[q_prj]"]
    assert train.main(words) == 1
    assert "model.lora.targets names 'q_prj'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": {"lora": LORA}}, "lora adapts trained weights and there are none; set init_fro"),
        ({"model": {"lora": LORA, "pretrained": "a"}}, "lora adapts trained weights"),
        ({"model": {"lora": {"rank": 0}, "init_from": "a"}}, "greater than 0"),
        ({"model": {"lora": {"targets": []}, "init_from": "a"}}, "targets"),
        ({"model": {"lora": LORA, "init_from": "a"}, "distill": {}}, "distill trains all weights"),
    ],
)
def test_settings_that_cannot_work_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainSettings.model_validate(values)


def test_adapters_identify_a_run_and_runs_without_keep_their_identity() -> None:
    plain, adapted, other = (
        TrainSettings.model_validate({"model": {"init_from": "a", "lora": lora}}).identity()
        for lora in (None, LORA, LORA | {"rank": 3})
    )
    assert len({plain, adapted, other}) == 3
    assert plain == TrainSettings.model_validate({"model": {"init_from": "b"}}).identity()


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without_peft(name: str, *arguments: Any, **more: Any) -> Any:
        if name == "peft":
            raise ImportError(name)
        return original(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without_peft)
    with pytest.raises(SettingsError, match=r"needs the package peft; install the extra `lora`"):
        num_trained(bundle_config(), LoraSettings())
