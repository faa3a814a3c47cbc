from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import SettingsError
from pipeline.tracking import (
    RunReference,
    Tracker,
    TrackingSettings,
    closing_run,
    open_run,
    tracking_uri,
)


def _client(reference: RunReference):
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=reference.uri)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One database for the module: creating its tables costs seconds."""
    return tmp_path_factory.mktemp("tracking")


def _open(place: Path, identity: str, **params: object) -> RunReference:
    reference = open_run(TrackingSettings(), place / "run", identity, params)
    assert reference is not None
    return reference


def test_a_restart_continues_the_same_run_and_another_identity_does_not(place, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    first = _open(place, "a", seed=1)
    Tracker(first).finish("FAILED")
    again = _open(place, "a", seed=2)
    other = _open(place, "b")
    run = _client(first).get_run(first.run_id)
    assert again == first
    assert other.run_id != first.run_id
    assert run.info.status == "RUNNING"
    assert run.data.params == {"seed": "1"}, "parameters belong to the first start"


def test_metrics_files_params_and_status_are_stored(place, monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    many = {f"key{i}": i for i in range(230)} | {"long": "x" * 9000}
    reference = _open(place, "c", model={"width": 3}, **many)
    figure = tmp_path / "curve.png"
    figure.write_bytes(b"png")
    with closing_run(reference) as tracker:
        tracker.log_metrics({"loss": 2.0, "rate": 1.0}, step=1)
        tracker.log_metrics({"loss": 1.0}, step=2)
        tracker.log_file(figure, "figures")
        tracker.log_tags({"device": "cpu"})
    client = _client(reference)
    run = client.get_run(reference.run_id)
    assert [(m.step, m.value) for m in client.get_metric_history(reference.run_id, "loss")] == [
        (1, 2.0),
        (2, 1.0),
    ]
    assert run.data.params["model.width"] == "3"
    assert len(run.data.params) == 232
    assert run.data.tags["device"] == "cpu"
    assert run.info.status == "FINISHED"
    assert [a.path for a in client.list_artifacts(reference.run_id, "figures")] == [
        "figures/curve.png"
    ]
    assert (place / "mlflow.db").is_file()
    assert not list(Path.cwd().glob("mlruns")), "artefacts lie beside the database"


def test_a_failing_block_closes_the_run_as_failed(place, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    reference = _open(place, "d")
    with pytest.raises(ValueError, match="boom"), closing_run(reference):
        raise ValueError("boom")
    assert _client(reference).get_run(reference.run_id).info.status == "FAILED"


def test_an_outage_costs_a_warning_not_the_run(place, monkeypatch, caplog, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    reference = _open(place, "e")
    lost = Tracker(RunReference(reference.uri, "0" * 32))
    lost.log_metrics({"loss": 1.0}, step=7)
    figure = tmp_path / "x.png"
    figure.write_bytes(b"png")
    lost.log_file(figure)
    assert "MLflow did not take the metrics of step 7" in caplog.text
    assert "MLflow did not take x.png" in caplog.text


def test_without_a_reference_nothing_is_logged(tmp_path):
    off = TrackingSettings(is_enabled=False)
    assert open_run(off, tmp_path / "run", "a", {}) is None
    tracker = Tracker(None)
    tracker.log_metrics({"loss": 1.0}, 1)
    tracker.log_params({"a": 1})
    tracker.log_file(tmp_path / "missing.png")
    tracker.finish()
    assert not tracker.is_active
    assert list(tmp_path.iterdir()) == []


def test_the_address_comes_from_setting_then_environment_then_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker:5000")
    assert tracking_uri(TrackingSettings(), "runs/a") == "http://tracker:5000"
    named = TrackingSettings(uri="sqlite:///here.db")
    assert tracking_uri(named, "runs/a") == f"sqlite:///{tmp_path}/here.db"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert tracking_uri(TrackingSettings(), "runs/a") == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert tracking_uri(TrackingSettings(), "s3://b/run") == f"sqlite:///{tmp_path}/mlflow.db"


@pytest.mark.parametrize("uri", ["./mlruns", "file:///somewhere/mlruns"])
def test_a_folder_is_refused_with_the_remedy(uri, tmp_path):
    with pytest.raises(SettingsError, match="sqlite:///"):
        tracking_uri(TrackingSettings(uri=uri), tmp_path / "run")
