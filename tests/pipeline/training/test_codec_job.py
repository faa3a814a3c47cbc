from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from jobs.train_codec import main
from model.codec.registry import load_codec
from pipeline.errors import IncompleteError, SettingsError
from pipeline.storage import Folder
from pipeline.training.codec_job import train_codec
from pipeline.training.codec_loop import Worker, run_worker
from pipeline.training.codec_settings import TrainCodecSettings
from tests.factories.codec import codec_settings_values, write_clips


def test_clips_must_be_complete(tmp_path: Path) -> None:
    settings = TrainCodecSettings.model_validate(codec_settings_values())
    with pytest.raises(IncompleteError, match="does not exist"):
        train_codec(settings, Folder.at(tmp_path / "none"), Folder.at(tmp_path / "run"))


@pytest.mark.ray
@pytest.mark.slow
def test_two_workers_train_one_codec(
    ray_session: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips, output = write_clips(tmp_path), tmp_path / "run"
    values = codec_settings_values(
        resources={"workers": 2}, tracking={"uri": f"sqlite:///{tmp_path}/mlflow.db"}
    )
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values))
    words = ["--clips", clips.uri, "--output", str(output), "--config", str(recipe)]
    assert main(words) == 0
    assert "codec in" in capsys.readouterr().out
    metrics = json.loads((output / "metrics.json").read_text())

    alone = tmp_path / "alone"
    settings = TrainCodecSettings.model_validate(codec_settings_values(latent_noise=0.05))
    run_worker(settings, clips, Folder.at(alone), worker=Worker())
    expected = json.loads((alone / "metrics.json").read_text())
    # the spread that scales the latent noise is of each worker's own rows
    assert metrics["loss_first"] == pytest.approx(expected["loss_first"], rel=0.02)
    assert metrics["loss_last"] == pytest.approx(expected["loss_last"], rel=0.05)
    load_codec(output / "codec")
    assert not (output / "ray-train").exists()

    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    assert main(words) == 0
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before
    with pytest.raises(SettingsError, match="other settings"):
        train_codec(
            TrainCodecSettings.model_validate({**values, "seed": 5}), clips, Folder.at(output)
        )
    _assert_one_finished_run(f"sqlite:///{tmp_path}/mlflow.db")


def _assert_one_finished_run(uri: str) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("audiocalm")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["optim.num_steps"] == "8"
    assert [m.step for m in client.get_metric_history(run.info.run_id, "codec/total")] == [
        2, 4, 6, 8,
    ]  # fmt: skip
    artefacts = {item.path for item in client.list_artifacts(run.info.run_id, "reconstructions")}
    assert "reconstructions/00-codec.wav" in artefacts
