from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from model.codec.registry import codec_importance, load_codec
from pipeline.errors import DamagedError, DiskFullError, NonFiniteError
from pipeline.storage import Folder
from pipeline.training import saving
from pipeline.training.checkpoint_store import CheckpointStore
from pipeline.training.codec.loop import CodecTraining, run_worker
from pipeline.training.codec.settings import TrainCodecSettings
from pipeline.training.place import Place
from pipeline.training.rundir import CHECKPOINTS, STOP_REQUEST
from tests.factories.cards import finish
from tests.factories.codec import PRINCIPAL, codec_settings_values, write_clips


def settings(**changes: Any) -> TrainCodecSettings:
    return TrainCodecSettings.model_validate(codec_settings_values(**changes))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return write_clips(tmp_path_factory.mktemp("clips"))


def train(clips: Folder, output: Path, **changes: Any) -> dict[str, Any]:
    run_worker(settings(**changes), clips, Folder.at(output), place=Place())
    metrics: dict[str, Any] = json.loads((output / "metrics.json").read_text())
    return metrics


def test_a_run_leaves_a_codec_curves_and_reconstructions(clips: Folder, tmp_path: Path) -> None:
    metrics = train(clips, tmp_path)
    codec = load_codec(tmp_path / "codec")
    assert metrics["parameters"] == sum(p.numel() for p in codec.parameters())
    importance = codec_importance(tmp_path / "codec")
    assert importance is not None
    assert sum(value**2 for value in importance) / codec.latent_dim == pytest.approx(1, abs=1e-3)
    assert [point["step"] for point in metrics["curve"]] == [2, 4, 6, 8]
    assert metrics["loss_last"] < metrics["loss_first"]
    assert metrics["validation"].keys() == {
        "total", "log_magnitude", "linear_magnitude", "phase", "mel", "kl", "head_magnitude",
        "head_mel",
    }  # fmt: skip
    made = {path.name for path in (tmp_path / "reconstructions").iterdir()}
    assert made == {
        "00-codec.png", "00-codec.wav", "00-original.png", "00-original.wav", "curves.png",
    }  # fmt: skip
    average = load_file(tmp_path / CHECKPOINTS / "step_00000008" / "average.safetensors")
    assert all(torch.equal(codec.state_dict()[name], value) for name, value in average.items())
    assert CheckpointStore(Folder.at(tmp_path / CHECKPOINTS)).steps() == [6, 8]


LINEAR: dict[str, Any] = {"codec": {**codec_settings_values()["codec"], **PRINCIPAL}}


@pytest.mark.parametrize("changes", [{}, LINEAR], ids=["network", "linear"])
def test_an_interrupted_run_ends_in_the_same_bytes(
    clips: Folder, tmp_path: Path, changes: dict[str, Any]
) -> None:
    whole = train(clips, tmp_path / "whole", **changes)
    training = CodecTraining(settings(**changes), clips, Folder.at(tmp_path / "torn"), Place())
    for _ in training.steps():
        if training.step == 4:  # one step after the checkpoint, lost with the process
            training.saving.finish()
            break
    torch.manual_seed(99)
    resumed = train(clips, tmp_path / "torn", **changes)
    assert resumed == whole
    for name in ("codec/model.safetensors", "codec/codec.json"):
        assert (tmp_path / "torn" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_run_begins_as_principal_components_of_its_crops(clips: Folder, tmp_path: Path) -> None:
    training = CodecTraining(settings(**LINEAR), clips, Folder.at(tmp_path), Place())
    latents = training.codec.encoder(torch.from_numpy(training.source.batch(0, 0, range(64))))[0]
    spread = latents[..., :2].flatten(0, 1).std(dim=0)
    torch.testing.assert_close(spread, torch.ones(2), atol=0.5, rtol=0.0)
    assert not training.codec.decoder.head.project.weight.any()
    for name, value in training.average.state_dict().items():
        assert torch.equal(value, training.codec.state_dict()[name]), name


ADVERSARIAL: dict[str, Any] = {
    "adversarial": {"start_step": 3},
    "discriminator": {
        "window_lengths": [32], "spectral_channels": 4, "periods": [3], "period_channels": 2,
    },
}  # fmt: skip


def test_discriminators_join_at_their_step(clips: Folder, tmp_path: Path) -> None:
    shared = {"optim": {"num_steps": 5, "warmup_steps": 1, "learning_rate": 1e-2}, "log_every": 1}
    metrics = train(clips, tmp_path / "joined", **ADVERSARIAL, **shared)
    alone = train(clips, tmp_path / "alone", **shared)
    terms = {"adversarial", "feature_matching", "discriminator", "discriminator_gradient_norm"}
    assert [terms <= point.keys() for point in metrics["curve"]] == [False] * 3 + [True] * 2
    assert not terms & metrics["curve"][2].keys()
    assert metrics["curve"][:3] == alone["curve"][:3]
    point = metrics["curve"][3]
    assert point["total"] == pytest.approx(
        alone["curve"][3]["total"] + 0.1 * point["adversarial"] + 5 * point["feature_matching"],
        rel=1e-5,
    )
    assert point["gradient_norm"] != alone["curve"][3]["gradient_norm"]
    assert metrics["curve"][4]["mel"] != alone["curve"][4]["mel"]


def test_an_interrupted_adversarial_run_ends_in_the_same_bytes(
    clips: Folder, tmp_path: Path
) -> None:
    whole = train(clips, tmp_path / "whole", **ADVERSARIAL)
    torn = Folder.at(tmp_path / "torn")
    training = CodecTraining(settings(**ADVERSARIAL), clips, torn, Place())
    for _ in training.steps():
        if training.step == 8:  # its checkpoint is not written yet: goes on from step 6
            training.saving.finish()
            break
    torch.manual_seed(99)
    assert train(clips, tmp_path / "torn", **ADVERSARIAL) == whole
    for name in ("model", "average", "discriminators", "discriminator_optimizer"):
        path = Path(CHECKPOINTS) / "step_00000008" / f"{name}.safetensors"
        assert (tmp_path / "torn" / path).read_bytes() == (tmp_path / "whole" / path).read_bytes()


def test_a_discriminator_that_is_not_finite_stops_before_its_step(
    clips: Folder, tmp_path: Path
) -> None:
    changes = {**ADVERSARIAL, "adversarial": {"start_step": 0}}
    training = CodecTraining(settings(**changes), clips, Folder.at(tmp_path), Place())
    assert training.adversary is not None
    weights = training.adversary.discriminators.state_dict()
    with torch.no_grad():
        next(iter(training.adversary.discriminators.parameters())).fill_(float("inf"))
    before = {name: value.clone() for name, value in weights.items()}
    codec = training.codec.encoder.project.weight.clone()
    with pytest.raises(NonFiniteError, match="step 0: discriminator"):
        list(training.steps())
    assert all(torch.equal(weights[name], value) for name, value in before.items())
    assert torch.equal(training.codec.encoder.project.weight, codec)


def test_a_run_begins_with_the_weights_it_is_given(clips: Folder, tmp_path: Path) -> None:
    train(clips, tmp_path / "first")
    given = str(tmp_path / "first" / "codec")
    training = CodecTraining(
        settings(init_from=given, seed=5), clips, Folder.at(tmp_path / "second"), Place()
    )
    expected = load_codec(given).state_dict()
    for begun in (training.codec, training.average):
        assert all(torch.equal(begun.state_dict()[name], expected[name]) for name in expected)
    values = codec_settings_values(init_from=given)
    values["codec"] = {**values["codec"], "ffn_dim": 32}
    with pytest.raises(ValueError, match=r"ffn_dim \(24, not 32\)"):
        CodecTraining(
            TrainCodecSettings.model_validate(values), clips, Folder.at(tmp_path), Place()
        )


def test_layers_in_bfloat16_learn_what_float32_learns(clips: Folder, tmp_path: Path) -> None:
    changes = {"log_every": 1}
    half = train(clips, tmp_path / "half", precision="bfloat16", **changes)
    full = train(clips, tmp_path / "full", **changes)
    for mine, theirs in zip(half["curve"], full["curve"], strict=True):
        # eight bits of mantissa in the layers, none lost in spectra and losses
        assert mine["total"] == pytest.approx(theirs["total"], rel=0.03)
    weights = load_file(tmp_path / "half" / "codec" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float32}


def test_a_seed_changes_the_run(clips: Folder, tmp_path: Path) -> None:
    runs = [
        CodecTraining(settings(seed=seed), clips, Folder.at(tmp_path / str(seed)), Place())
        for seed in (0, 1)
    ]
    first, other = (next(training.steps())["total"] for training in runs)
    assert first != other


def test_a_run_of_some_length_learns_clearly(clips: Folder, tmp_path: Path) -> None:
    optim = {"num_steps": 120, "warmup_steps": 10, "learning_rate": 1e-2, "ema_decay": 0.9}
    metrics = train(clips, tmp_path, optim=optim, log_every=6, checkpoint={"every": 200})
    assert metrics["loss_last"] < 0.8 * metrics["loss_first"]
    # One synthetic clip the run never hears; the crops it does hear are a handful.
    assert metrics["validation"]["total"] < 0.97 * metrics["loss_first"]


def test_a_loss_that_is_not_finite_stops_before_the_step(clips: Folder, tmp_path: Path) -> None:
    training = CodecTraining(settings(), clips, Folder.at(tmp_path), Place())
    with torch.no_grad():
        training.codec.decoder.spread.weight.fill_(float("nan"))
    before = training.codec.encoder.project.weight.clone()
    with pytest.raises(NonFiniteError, match="step 0: total") as caught:
        list(training.steps())
    assert "crops.skip_steps=[0]" in str(caught.value)
    for clip in training.source.clips(0, 0, range(4)):
        assert clip in str(caught.value)
    assert torch.equal(training.codec.encoder.project.weight, before)
    assert training.step == 0


def test_a_stop_request_saves_and_the_next_start_ends_in_the_same_bytes(
    clips: Folder, tmp_path: Path
) -> None:
    whole = train(clips, tmp_path / "whole")
    stopped = tmp_path / "stopped"
    stopped.mkdir()
    (stopped / STOP_REQUEST).write_text("please")
    run_worker(settings(), clips, Folder.at(stopped), place=Place())
    assert CheckpointStore(Folder.at(stopped / CHECKPOINTS)).steps() == [1]
    assert not (stopped / "metrics.json").exists()
    (stopped / STOP_REQUEST).unlink()
    assert train(clips, stopped) == whole


def test_damaged_checkpoints_fall_back_to_the_newest_good_one(
    clips: Folder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = train(clips, tmp_path, checkpoint={"every": 3, "num_to_keep": 9})
    (tmp_path / CHECKPOINTS / "step_00000008" / "model.safetensors").unlink()
    state = tmp_path / CHECKPOINTS / "step_00000006" / "trainer_state.json"
    state.write_text(state.read_text()[:-9])
    training = CodecTraining(settings(), clips, Folder.at(tmp_path), Place())
    training.resume()
    assert training.step == 3
    assert "step 8 is damaged" in caplog.text
    assert "step 6 is damaged" in caplog.text
    assert "step 3 takes its place" in caplog.text
    assert CheckpointStore(Folder.at(tmp_path / CHECKPOINTS)).steps() == [3]
    (tmp_path / "metrics.json").unlink()
    assert train(clips, tmp_path) == whole
    for path in (tmp_path / CHECKPOINTS).glob("step_*/average.safetensors"):
        path.write_bytes(b"")
    with pytest.raises(DamagedError, match="train from the beginning"):
        CodecTraining(settings(), clips, Folder.at(tmp_path), Place()).resume()


def test_a_full_disk_keeps_the_newest_good_checkpoint(
    clips: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = saving.save_weights

    def save_weights(path: Path, weights: object, **options: bool) -> None:
        if "step_00000006" in str(path) and path.name == "optimizer.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device")
        original(path, weights, **options)

    monkeypatch.setattr(saving, "save_weights", save_weights)
    with pytest.raises(DiskFullError, match=r"step 6 in .*No space.*step 3 is the newest good one"):
        train(clips, tmp_path)
    assert [path.name for path in (tmp_path / CHECKPOINTS).iterdir()] == ["step_00000003"]


def test_a_skipped_step_is_not_heard(clips: Folder, tmp_path: Path) -> None:
    crops = codec_settings_values()["crops"] | {"skip_steps": [1, 7]}
    training = CodecTraining(
        settings(crops=crops, log_every=1), clips, Folder.at(tmp_path), Place()
    )
    heard = []
    original = training.source.batch
    training.source.batch = lambda seed, step, indices: (
        heard.append(step) or original(seed, step, indices)
    )
    assert [point["step"] for point in training.steps()] == [1, 3, 4, 5, 6, 7]
    assert heard == [0, 2, 3, 4, 5, 6]
    assert CheckpointStore(Folder.at(tmp_path / CHECKPOINTS)).steps() == [6, 8]


def test_validation_falls_back_to_training_clips(
    clips: Folder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = clips.read_table("parts/part-00000000.parquet")
    rows = [{**row, "split": "train"} for row in table.to_pylist()]
    from pipeline.storage import table_bytes

    folder = Folder.at(tmp_path / "clips")
    folder.write_bytes("parts/part-00000000.parquet", table_bytes(table.from_pylist(rows)))
    finish(folder, {})
    train(folder, tmp_path / "run", optim={"num_steps": 1})
    assert "no clips of split validation" in caplog.text


def test_crops_must_divide_among_workers() -> None:
    with pytest.raises(ValueError, match="does not divide into 3 workers"):
        settings(resources={"num_workers": 3})


def test_an_unknown_codec_field_is_refused_before_anything_starts() -> None:
    values = codec_settings_values(codec={"colour": 1})
    with pytest.raises(ValueError, match="colour"):
        TrainCodecSettings.model_validate(values)
