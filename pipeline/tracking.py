"""Experiment tracking in MLflow: one run per output directory, continued by every restart.

The driver finds or creates the run; the one process that logs gets a `RunReference` and opens a
`Tracker` on it. Nothing here sets global MLflow state, so several runs can live in one process.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import SettingsError
from pipeline.settings import Settings, flatten

logger = logging.getLogger(__name__)

IDENTITY_TAG = "audiocalm.identity"
"""Tag that a restarted job finds its run by."""
_PARAM_LENGTH = 500
_PARAMS_PER_CALL = 100
_DATABASE = "mlflow.db"
_ARTEFACTS = "mlflow-artifacts"


class TrackingSettings(Settings):
    """Where metrics, samples and figures are logged."""

    is_enabled: bool = True
    """Whether anything is logged to MLflow."""
    uri: str | None = None
    """Tracking server or `sqlite:///` database; None takes MLFLOW_TRACKING_URI from the
    environment, else a database beside the output directory. MLflow refuses plain folders."""
    experiment: str = "audiocalm"
    """Name of the MLflow experiment."""
    run_name: str | None = None
    """Display name of the run; None takes the name of the output directory."""


@dataclass(frozen=True)
class RunReference:
    """A run by address and id: plain strings that travel to workers."""

    uri: str
    run_id: str


def tracking_uri(settings: TrackingSettings, output: str | os.PathLike[str]) -> str:
    """The tracking address: the setting, else MLFLOW_TRACKING_URI, else a database beside `output`.

    Relative `sqlite:///` paths are made absolute, because workers may run in another directory.

    Raises:
        SettingsError: If the address is a plain folder.
    """
    given = settings.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if given is None:
        if "://" in os.fspath(output):
            return f"sqlite:///{Path(_DATABASE).resolve()}"
        return f"sqlite:///{Path(output).expanduser().resolve().parent / _DATABASE}"
    if given.startswith("sqlite:///"):
        return f"sqlite:///{Path(given.removeprefix('sqlite:///')).expanduser().resolve()}"
    if "://" not in given or given.startswith("file:"):
        raise SettingsError(
            f"tracking uri {given!r} is a folder, which MLflow no longer writes to; "
            "use sqlite:///<path>/mlflow.db or the address of an MLflow server"
        )
    return given


def open_run(
    settings: TrackingSettings,
    output: str | os.PathLike[str],
    identity: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str] | None = None,
) -> RunReference | None:
    """Find the run with this identity, or create it; the driver calls this once.

    Args:
        settings: Where to look.
        output: The job's output directory; names the run and places the default database.
        identity: What makes two starts of a job the same run.
        params: Resolved settings, logged flat when the run is created.
        tags: More tags of a new run.

    Returns:
        The reference to pass to the process that logs; None if tracking is off.
    """
    if not settings.is_enabled:
        return None
    uri = tracking_uri(settings, output)
    client = _client(uri)
    experiment_id = _experiment(client, settings.experiment, uri)
    found = client.search_runs(
        [experiment_id], filter_string=f"tags.`{IDENTITY_TAG}` = '{identity}'", max_results=1
    )
    if found:
        run_id: str = found[0].info.run_id
        client.set_terminated(run_id, "RUNNING")
        logger.info("continuing MLflow run %s at %s", run_id, uri)
        return RunReference(uri, run_id)
    name = settings.run_name or os.path.basename(os.fspath(output).rstrip("/"))
    run = client.create_run(
        experiment_id, run_name=name, tags={IDENTITY_TAG: identity, **(tags or {})}
    )
    reference = RunReference(uri, run.info.run_id)
    Tracker(reference).log_params(params)
    logger.info("created MLflow run %s at %s", reference.run_id, uri)
    return reference


class Tracker:
    """Logs to one run; with None it accepts everything and logs nothing.

    Args:
        reference: From `open_run`; pass None on every rank but the first.
    """

    def __init__(self, reference: RunReference | None) -> None:
        self.reference = reference
        self._client = None if reference is None else _client(reference.uri)

    @property
    def is_active(self) -> bool:
        """Whether anything is written."""
        return self._client is not None

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log nested parameters as dotted keys; values are cut to what MLflow stores."""
        if self._client is None or self.reference is None:
            return
        from mlflow.entities import Param

        flat = [Param(key, str(value)[:_PARAM_LENGTH]) for key, value in flatten(params).items()]
        for start in range(0, len(flat), _PARAMS_PER_CALL):
            self._client.log_batch(
                self.reference.run_id, params=flat[start : start + _PARAMS_PER_CALL]
            )

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log several numbers of one step in one call; an outage is a warning, not a failure."""
        if self._client is None or self.reference is None or not metrics:
            return
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        batch = [Metric(key, float(value), now_ms, step) for key, value in metrics.items()]
        with _outage_survived(f"the metrics of step {step}"):
            self._client.log_batch(self.reference.run_id, metrics=batch)

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""
        if self._client is None or self.reference is None:
            return
        for key, value in tags.items():
            self._client.set_tag(self.reference.run_id, key, value)

    def log_file(self, path: str | os.PathLike[str], folder: str = "") -> None:
        """Copy a file into the run's artefacts: audio, a figure, a report.

        An outage is a warning, not a failure.
        """
        if self._client is None or self.reference is None:
            return
        with _outage_survived(os.path.basename(os.fspath(path))):
            self._client.log_artifact(self.reference.run_id, os.fspath(path), folder or None)

    def finish(self, status: str = "FINISHED") -> None:
        """Close the run: FINISHED, FAILED or KILLED."""
        if self._client is None or self.reference is None:
            return
        self._client.set_terminated(self.reference.run_id, status)


@contextmanager
def closing_run(reference: RunReference | None) -> Iterator[Tracker]:
    """A tracker whose run ends FINISHED, or FAILED when the block raises."""
    tracker = Tracker(reference)
    status = "FAILED"
    try:
        yield tracker
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        tracker.finish(status)


@contextmanager
def _outage_survived(what: str) -> Iterator[None]:
    """Days of training do not end because a tracking server or its database is away."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        logger.warning("MLflow did not take %s: %s", what, str(error).splitlines()[0])


def _client(uri: str) -> Any:
    # Read at the import: who runs this tells nobody, unless they say so.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    # The import sets its own level, and then tells of every table it creates.
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri)


def _experiment(client: Any, name: str, uri: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)
    location = None
    if uri.startswith("sqlite:///"):
        location = (Path(uri.removeprefix("sqlite:///")).parent / _ARTEFACTS).as_uri()
    try:
        return str(client.create_experiment(name, artifact_location=location))
    except MlflowException:
        # Another job created it between the two calls.
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)
