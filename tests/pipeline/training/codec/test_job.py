from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import yaml

from jobs.train_codec import main
from model.codec.registry import load_codec
from pipeline.errors import IncompleteError, NonFiniteError, SettingsError
from pipeline.storage import Folder
from pipeline.training.codec.job import train_codec
from pipeline.training.codec.loop import run_worker
from pipeline.training.codec.settings import TrainCodecSettings
from pipeline.training.failures import failure_summary
from pipeline.training.place import Place
from tests.factories.codec import codec_settings_values, write_clips


def test_clips_must_be_complete(tmp_path: Path) -> None:
    settings = TrainCodecSettings.model_validate(codec_settings_values())
    with pytest.raises(IncompleteError, match="does not exist"):
        train_codec(settings, Folder.at(tmp_path / "none"), Folder.at(tmp_path / "run"))


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """`train_codec` on the same clips with other settings; the workers only write what they say."""
    clips, output = write_clips(tmp_path), Folder.at(tmp_path / "run")
    monkeypatch.setattr("pipeline.training.driver.ray_cluster", contextlib.nullcontext)

    def train(written: dict[str, dict[str, object]], **changes: object) -> dict[str, object]:
        def work(*args: object, **kwargs: object) -> None:
            for name, value in written.items():
                output.write_json(name, value)

        monkeypatch.setattr("pipeline.training.driver.run_group", work)
        settings = TrainCodecSettings.model_validate(codec_settings_values(**changes))
        return train_codec(settings, clips, output)

    return train


OPTIM = codec_settings_values()["optim"]


FINISHED = {"state": "finished"}


def checkpoint(step: int) -> str:
    """Marker of a checkpoint without files."""
    return f"checkpoints/step_{step:08d}/_COMPLETE"


def test_a_finished_run_may_be_lengthened_with_another_rate(fitted, tmp_path: Path) -> None:
    done = {"metrics.json": {"steps": 8}, checkpoint(8): {"files": {}}, "summary.json": FINISHED}
    assert fitted(done) == {"steps": 8}
    assert fitted({"metrics.json": {"steps": 0}}) == {"steps": 8}, "a finished run is left alone"
    longer = OPTIM | {"num_steps": 16, "learning_rate": 1e-3}
    assert fitted({"metrics.json": {"steps": 16}, "summary.json": FINISHED}, optim=longer) == {
        "steps": 16
    }
    claim = json.loads((tmp_path / "run" / "run.json").read_text())
    assert claim["changes"] == [
        {
            "step": 8,
            "settings": {"optim.num_steps": [8, 16], "optim.learning_rate": [3e-3, 1e-3]},
        }
    ]
    with pytest.raises(SettingsError, match="reached step 8; give at least 8"):
        fitted({}, optim=OPTIM | {"num_steps": 4})
    with pytest.raises(SettingsError, match="other settings"):
        fitted({}, optim=longer | {"weight_decay": 0.5})


def test_a_stopped_run_says_so_and_what_failed_for_good_is_raised(fitted, tmp_path: Path) -> None:
    said = {"state": "stopped", "step": 3, "num_steps": 8}
    assert fitted({checkpoint(3): {"files": {}}, "stop_request": {}, "summary.json": said}) == said
    assert not (tmp_path / "run" / "stop_request").exists()
    with pytest.raises(NonFiniteError, match="its clips"):
        fitted({"summary.json": failure_summary(NonFiniteError("its clips"))})
    done = {"metrics.json": {"steps": 8}, "summary.json": FINISHED}
    assert fitted(done) == {"steps": 8}


@pytest.mark.ray
@pytest.mark.nightly
def test_two_workers_train_one_codec(
    ray_session: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips, output = write_clips(tmp_path), tmp_path / "run"
    values = codec_settings_values(
        resources={"num_workers": 2}, tracking={"uri": f"sqlite:///{tmp_path}/mlflow.db"}
    )
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values))
    words = ["--clips", clips.uri, "--output", str(output), "--config", str(recipe)]
    assert main(words) == 0
    assert "codec in" in capsys.readouterr().out
    metrics = json.loads((output / "metrics.json").read_text())

    alone = tmp_path / "alone"
    settings = TrainCodecSettings.model_validate(codec_settings_values(latent_noise=0.05))
    run_worker(settings, clips, Folder.at(alone), place=Place())
    expected = json.loads((alone / "metrics.json").read_text())
    # the spread that scales the latent noise is of each worker's own rows
    assert metrics["loss_first"] == pytest.approx(expected["loss_first"], rel=0.02)
    assert metrics["loss_last"] == pytest.approx(expected["loss_last"], rel=0.05)
    load_codec(output / "codec")

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
