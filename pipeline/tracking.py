"""Experiment tracking in MLflow: one run per output directory, continued by every restart.

The driver finds or creates the run; the one process that logs gets a `RunReference` and opens a
`Tracker` on it. Nothing here sets global MLflow state, so several runs can live in one process.

A tracking server that is away costs seconds and a warning, never the run: what it does not take
while a run lasts is delivered later by `pipeline.outbox`.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.errors import SettingsError
from pipeline.faults import is_of_service
from pipeline.outbox import Outbox, RefusedRecordError
from pipeline.settings import Settings, flatten

logger = logging.getLogger(__name__)

IDENTITY_TAG = "audiocalm.identity"
"""Tag that a restarted job finds its run by."""
_PARAM_LENGTH = 500
_PARAMS_PER_CALL = 100
_DATABASE = "mlflow.db"
_ARTEFACTS = "mlflow-artifacts"
_SQLITE = "sqlite:///"
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
}
"""Timeouts and retries of MLflow. With its own limits, 120 s and seven retries, one call of an
unreachable server lasts minutes. Values that the environment sets take precedence."""
_calls = threading.RLock()
_DELIVERY_S = 10.0
"""How long the end of a run waits for records that are still to be delivered."""
_LOCK_S = 600.0


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
            return f"{_SQLITE}{Path(_DATABASE).resolve()}"
        return f"{_SQLITE}{Path(output).expanduser().resolve().parent / _DATABASE}"
    if given.startswith(_SQLITE):
        return f"{_SQLITE}{Path(given.removeprefix(_SQLITE)).expanduser().resolve()}"
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
        settings: Settings of tracking.
        output: The job's output directory; names the run and places the default database.
        identity: What makes two starts of a job the same run.
        params: Resolved settings, logged flat when the run is created.
        tags: Further tags of a new run.

    Returns:
        The reference to pass to the process that logs; None if tracking is off, or if MLflow
        cannot be reached, which is a warning.

    Raises:
        SettingsError: If the address can never be one of MLflow's.
    """
    if not settings.is_enabled:
        return None
    uri = tracking_uri(settings, output)
    try:
        with _bounded_calls(), _database_lock(uri):
            return _find_or_create(settings, uri, output, identity, params, tags or {})
    except SettingsError:
        raise
    except Exception as error:  # MLflow, its databases and HTTP share no base class
        logger.warning(
            "MLflow at %s cannot be used: %s. This start is not tracked; the output is complete "
            "without it. Check tracking.uri, or give tracking.is_enabled=false",
            uri,
            _first_line(error),
            exc_info=None if is_of_service(error) else error,
        )
        return None


def _find_or_create(
    settings: TrackingSettings,
    uri: str,
    output: str | os.PathLike[str],
    identity: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
) -> RunReference:
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
    run = client.create_run(experiment_id, run_name=name, tags={IDENTITY_TAG: identity, **tags})
    reference = RunReference(uri, run.info.run_id)
    Tracker(reference).log_params(params)
    logger.info("created MLflow run %s at %s", reference.run_id, uri)
    return reference


class Tracker:
    """Logs to one run; with None it accepts everything and logs nothing.

    No method raises because of MLflow. Metrics and files are delivered from a background thread,
    so that no training step waits for a server.

    Args:
        reference: Result of `open_run`; pass None on every rank but the first.
    """

    def __init__(self, reference: RunReference | None) -> None:
        self.reference = reference
        self._client: Any = None
        self._outbox = Outbox("MLflow")
        if reference is not None:
            with _outage_survived("a new client"):
                self._client = _client(reference.uri)

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
        with _outage_survived("the parameters"):
            for start in range(0, len(flat), _PARAMS_PER_CALL):
                self._client.log_batch(
                    self.reference.run_id, params=flat[start : start + _PARAMS_PER_CALL]
                )

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log several numbers of one step, in the background."""
        if self._client is None or self.reference is None or not metrics:
            return
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        batch = [Metric(key, float(value), now_ms, step) for key, value in metrics.items()]
        self._post(
            f"the metrics of step {step}",
            partial(self._client.log_batch, self.reference.run_id, metrics=batch),
        )

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""
        if self._client is None or self.reference is None:
            return
        with _outage_survived("tags"):
            for key, value in tags.items():
                self._client.set_tag(self.reference.run_id, key, value)

    def log_file(self, path: str | os.PathLike[str], folder: str = "") -> None:
        """Copy a file into the run's artefacts, in the background: audio, a figure, a report.

        The file may be deleted or changed once this returns.
        """
        if self._client is None or self.reference is None:
            return
        name = os.path.basename(os.fspath(path))
        try:
            copy = self._outbox.keep(path)
        except OSError as error:
            logger.warning("MLflow did not take %s: %s", name, error)
            return
        self._post(
            name,
            partial(self._client.log_artifact, self.reference.run_id, copy, folder or None),
        )

    def flush(self, timeout_s: float = _DELIVERY_S) -> None:
        """Wait until everything is delivered, or for so many seconds; the process may end then."""
        if left := self._outbox.flush(timeout_s):
            logger.warning("MLflow did not take %d records of this run; they are lost there", left)

    def finish(self, status: str = "FINISHED") -> None:
        """Close the run: FINISHED, FAILED or KILLED."""
        self.flush()
        if self._client is None or self.reference is None:
            return
        with _outage_survived(f"the end of the run ({status})"):
            self._client.set_terminated(self.reference.run_id, status)

    def _post(self, what: str, send: Callable[[], Any]) -> None:
        self._outbox.post(what, partial(_deliver, send))


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


def _deliver(send: Callable[[], Any]) -> None:
    """Send one record; a record that MLflow answers with a client error is refused for good."""
    from mlflow.exceptions import MlflowException

    try:
        with _bounded_calls():
            send()
    except MlflowException as error:
        status = error.get_http_status_code()
        if 400 <= status < 500 and status not in (408, 429):
            raise RefusedRecordError(_first_line(error)) from error
        raise


@contextmanager
def _outage_survived(what: str) -> Iterator[None]:
    """Log the errors of this block, so that a lost tracking server does not end a long training."""
    try:
        with _bounded_calls():
            yield
    except Exception as error:  # MLflow, databases and object stores share no base class
        traceback = None if is_of_service(error) else error
        logger.warning("MLflow did not take %s: %s", what, _first_line(error), exc_info=traceback)


@contextmanager
def _bounded_calls() -> Iterator[None]:
    """Limit calls of MLflow inside this block to seconds."""
    with _calls:
        mine = {name: value for name, value in _PATIENCE.items() if name not in os.environ}
        os.environ.update(mine)
        try:
            yield
        finally:
            for name in mine:
                os.environ.pop(name, None)


@contextmanager
def _database_lock(uri: str) -> Iterator[None]:
    """Hold the lock of a SQLite database, which one process at a time opens.

    MLflow (3.17) creates and migrates its tables without excluding other processes, so that of
    several first starts at once all but one fail.
    """
    with ExitStack() as stack:
        if uri.startswith(_SQLITE):
            path = Path(uri.removeprefix(_SQLITE))
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(path.with_name(f".{path.name}.lock").open("w"))
            deadline = time.monotonic() + _LOCK_S
            while time.monotonic() < deadline:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(0.05)
        yield


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _client(uri: str) -> Any:
    # Read at the import: who runs this tells nobody, unless they say so.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient
    from mlflow.tracking.registry import UnsupportedModelRegistryStoreURIException

    # The import sets its own level, and then tells of every table it creates.
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    if uri.startswith(_SQLITE):
        Path(uri.removeprefix(_SQLITE)).parent.mkdir(parents=True, exist_ok=True)
    try:
        return MlflowClient(tracking_uri=uri)
    except UnsupportedModelRegistryStoreURIException as error:
        raise SettingsError(
            f"tracking uri {uri!r} is no address of MLflow; give http(s)://..., sqlite:///... or "
            "another database"
        ) from error


def _experiment(client: Any, name: str, uri: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)
    location = None
    if uri.startswith(_SQLITE):
        location = (Path(uri.removeprefix(_SQLITE)).parent / _ARTEFACTS).as_uri()
    try:
        return str(client.create_experiment(name, artifact_location=location))
    except MlflowException:
        # Another job created it between the two calls.
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)
