from __future__ import annotations

import multiprocessing
import os
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
    lost.finish()
    assert "MLflow did not take the end of the run (FINISHED)" in caplog.text
    assert "MLflow did not take the metrics of step 7" in caplog.text
    assert "MLflow did not take x.png" in caplog.text


DEAD = "http://127.0.0.1:9"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection is not tried a second time, so that a test takes milliseconds."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def test_a_server_that_is_away_at_the_start_is_one_warning(impatient, caplog, tmp_path):
    assert open_run(TrackingSettings(uri=DEAD), tmp_path / "run", "a", {"x": 1}) is None
    (record,) = caplog.records
    assert f"MLflow at {DEAD} cannot be used" in record.getMessage()
    assert "tracking.is_enabled=false" in record.getMessage()


def test_a_database_that_cannot_be_opened_is_one_warning(caplog, tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"no database, but long enough to be read as one" * 50)
    assert open_run(TrackingSettings(), tmp_path / "run", "a", {}) is None
    assert "cannot be used" in caplog.text


def test_a_server_that_goes_away_later_ends_no_run_and_hides_no_error(impatient, caplog):
    lost = RunReference(DEAD, "0" * 32)
    with closing_run(lost) as tracker:
        tracker.log_tags({"a": "b"})
        tracker.log_params({"a": 1})
    with pytest.raises(ValueError, match="boom"), closing_run(lost):
        raise ValueError("boom")
    assert caplog.text.count("the end of the run") == 2


def test_an_outage_in_the_middle_loses_nothing(monkeypatch, tmp_path, caplog):
    class Client:
        def __init__(self) -> None:
            self.is_away, self.taken = True, []

        def log_batch(self, run_id: str, metrics: list) -> None:
            if self.is_away:
                raise ConnectionError("away")
            self.taken += [metric.step for metric in metrics]

        def log_artifact(self, run_id: str, path: str, folder: str | None) -> None:
            self.taken.append(Path(path).read_text())

    client = Client()
    monkeypatch.setattr("pipeline.tracking._client", lambda uri: client)
    tracker = Tracker(RunReference("http://tracker", "0"))
    tracker.log_metrics({"loss": 1.0}, 1)
    tracker.flush(0.1)
    assert client.taken == []
    client.is_away = False
    figure = tmp_path / "x.txt"
    figure.write_text("figure")
    tracker.log_file(figure)
    figure.unlink()
    tracker.log_metrics({"loss": 1.0}, 2)
    tracker.flush(60)
    assert sorted(map(str, client.taken)) == ["1", "2", "figure"]
    tracker.log_file(figure)
    assert "MLflow did not take x.txt" in caplog.text, "a file that is gone ends no run either"


def test_patience_with_a_server_is_bounded_and_the_environment_left_alone(monkeypatch):
    from pipeline.tracking import _bounded_calls

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    before = dict(os.environ)
    with _bounded_calls():
        from mlflow.environment_variables import (
            MLFLOW_HTTP_REQUEST_MAX_RETRIES,
            MLFLOW_HTTP_REQUEST_TIMEOUT,
        )

        assert MLFLOW_HTTP_REQUEST_TIMEOUT.get() <= 10
        assert MLFLOW_HTTP_REQUEST_MAX_RETRIES.get() == 3, "what the user set holds"
    assert dict(os.environ) == before


def _first_start(place: Path, identity: str) -> None:
    reference = open_run(TrackingSettings(), place / "run", identity, {"a": 1})
    assert reference is not None


@pytest.mark.nightly
def test_first_starts_at_once_share_one_new_database(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    spawned = multiprocessing.get_context("spawn")
    starts = [spawned.Process(target=_first_start, args=(tmp_path, name)) for name in "ab"]
    for start in starts:
        start.start()
    for start in starts:
        start.join()
    assert [start.exitcode for start in starts] == [0, 0]
    reference = RunReference(f"sqlite:///{tmp_path}/mlflow.db", "")
    assert len(_client(reference).search_runs(["1"])) == 2


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


def test_an_address_that_is_none_of_mlflows_is_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"htp://tracker:5000.* give http"):
        open_run(TrackingSettings(uri="htp://tracker:5000"), tmp_path / "run", "a", {})


@pytest.mark.parametrize("uri", ["./mlruns", "file:///somewhere/mlruns"])
def test_a_folder_is_refused_with_the_remedy(uri, tmp_path):
    with pytest.raises(SettingsError, match="sqlite:///"):
        tracking_uri(TrackingSettings(uri=uri), tmp_path / "run")
