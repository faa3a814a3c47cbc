from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from model.codec.registry import load_codec
from pipeline.errors import NonFiniteError
from pipeline.storage import Folder
from pipeline.training.codec_checkpoint import checkpoint_steps
from pipeline.training.codec_loop import CHECKPOINTS, CodecTraining, Worker, run_worker
from pipeline.training.codec_settings import TrainCodecSettings
from tests.factories.codec import codec_settings_values, write_clips


def settings(**changes: Any) -> TrainCodecSettings:
    return TrainCodecSettings.model_validate(codec_settings_values(**changes))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return write_clips(tmp_path_factory.mktemp("clips"))


def train(clips: Folder, output: Path, **changes: Any) -> dict[str, Any]:
    run_worker(settings(**changes), clips, Folder.at(output), worker=Worker())
    metrics: dict[str, Any] = json.loads((output / "metrics.json").read_text())
    return metrics


def test_a_run_leaves_a_codec_curves_and_reconstructions(clips: Folder, tmp_path: Path) -> None:
    metrics = train(clips, tmp_path)
    codec = load_codec(tmp_path / "codec")
    assert metrics["parameters"] == sum(p.numel() for p in codec.parameters())
    assert [point["step"] for point in metrics["curve"]] == [2, 4, 6, 8]
    assert metrics["loss_last"] < metrics["loss_first"]
    assert metrics["validation"].keys() == {
        "total", "log_magnitude", "linear_magnitude", "phase", "mel", "kl",
    }  # fmt: skip
    made = {path.name for path in (tmp_path / "reconstructions").iterdir()}
    assert made == {
        "00-codec.png", "00-codec.wav", "00-original.png", "00-original.wav", "curves.png",
    }  # fmt: skip
    average = load_file(tmp_path / CHECKPOINTS / "step-00000008" / "average.safetensors")
    assert all(torch.equal(codec.state_dict()[name], value) for name, value in average.items())
    assert checkpoint_steps(Folder.at(tmp_path / CHECKPOINTS)) == [6, 8]


def test_an_interrupted_run_ends_in_the_same_bytes(clips: Folder, tmp_path: Path) -> None:
    whole = train(clips, tmp_path / "whole")
    training = CodecTraining(settings(), clips, Folder.at(tmp_path / "torn"), Worker())
    for _ in training.steps():
        if training.step == 4:  # one step after the checkpoint, lost with the process
            break
    torch.manual_seed(99)
    resumed = train(clips, tmp_path / "torn")
    assert resumed == whole
    for name in ("codec/model.safetensors", "codec/codec.json"):
        assert (tmp_path / "torn" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_seed_changes_the_run(clips: Folder, tmp_path: Path) -> None:
    runs = [
        CodecTraining(settings(seed=seed), clips, Folder.at(tmp_path / str(seed)), Worker())
        for seed in (0, 1)
    ]
    first, other = (next(training.steps())["total"] for training in runs)
    assert first != other


def test_a_run_of_some_length_learns_clearly(clips: Folder, tmp_path: Path) -> None:
    optim = {"num_steps": 120, "warmup_steps": 10, "learning_rate": 1e-2, "ema_decay": 0.9}
    metrics = train(clips, tmp_path, optim=optim, log_every=6, checkpoint_every=200)
    assert metrics["loss_last"] < 0.7 * metrics["loss_first"]
    # One synthetic clip the run never hears; the crops it does hear are a handful.
    assert metrics["validation"]["total"] < 0.97 * metrics["loss_first"]


def test_a_loss_that_is_not_finite_stops_before_the_step(clips: Folder, tmp_path: Path) -> None:
    training = CodecTraining(settings(), clips, Folder.at(tmp_path), Worker())
    with torch.no_grad():
        training.codec.decoder.spread.weight.fill_(float("nan"))
    before = training.codec.encoder.project.weight.clone()
    with pytest.raises(NonFiniteError, match="step 1: total"):
        list(training.steps())
    assert torch.equal(training.codec.encoder.project.weight, before)
    assert training.step == 0


def test_validation_falls_back_to_training_clips(
    clips: Folder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = clips.read_table("parts/part-00000.parquet")
    rows = [{**row, "split": "train"} for row in table.to_pylist()]
    from pipeline.storage import table_bytes

    folder = Folder.at(tmp_path / "clips")
    folder.write_bytes("parts/part-00000.parquet", table_bytes(table.from_pylist(rows)))
    folder.finish({})
    train(folder, tmp_path / "run", optim={"num_steps": 1})
    assert "no clips of split validation" in caplog.text


def test_crops_must_divide_among_workers() -> None:
    with pytest.raises(ValueError, match="does not divide into 3 workers"):
        settings(resources={"workers": 3})


def test_an_unknown_codec_field_is_refused_before_anything_starts() -> None:
    values = codec_settings_values(codec={"colour": 1})
    with pytest.raises(ValueError, match="colour"):
        TrainCodecSettings.model_validate(values)
