"""The driver's part that every training shares: workers run, stop on request, and end the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pipeline.cluster import ray_cluster
from pipeline.storage import Folder
from pipeline.tracking import RunReference, Tracker, closing_run
from pipeline.training.failures import FINAL_ERRORS, failure_summary, raise_failure
from pipeline.training.place import Place
from pipeline.training.rundir import CHECKPOINTS, STOP_REQUEST, SUMMARY, change_tags
from pipeline.training.settings import WorkerSettings
from pipeline.training.workers import place_of_worker, quiet_reports, run_group


def train_claimed(
    run: Folder,
    claim: Mapping[str, Any],
    reference: RunReference | None,
    worker: Callable[[dict[str, Any]], None],
    config: dict[str, Any],
    workers: WorkerSettings,
) -> dict[str, Any]:
    """Train in a claimed run directory until the workers return; Ray is started or connected to.

    Args:
        run: Run directory.
        claim: Claim of the run directory, whose changes of settings become tags.
        reference: MLflow run.
        worker: Called with `config` in every worker, inside `training_worker`.
        config: Argument of `worker`.
        workers: Size of the group and resources of a worker.

    Returns:
        The summary that the first worker wrote.

    Raises:
        NonFiniteError: If the loss diverged.
        DiskFullError: If there is no room for the checkpoints.
        DamagedError: If no checkpoint of an earlier start is good any more.
        KeyboardInterrupt: On a second Ctrl-C; the first one saves a checkpoint and ends the run.
        PipelineError: If the workers failed more often than the settings allow.
    """
    for name in (SUMMARY, STOP_REQUEST):
        run.delete(name)
    with closing_run(reference) as tracker, ray_cluster():
        tracker.log_tags(change_tags(claim))
        run_group(
            worker,
            config,
            folder=run.child(CHECKPOINTS),
            num_workers=workers.num_workers,
            resources={"CPU": workers.cpus_per_worker} | ({"GPU": 1.0} if workers.use_gpu else {}),
            max_failures=workers.max_failures,
            request_stop=lambda name: run.write_bytes(STOP_REQUEST, f"{name}\n".encode()),
        )
        summary: dict[str, Any] = run.read_json(SUMMARY)
        raise_failure(summary)
    run.delete(STOP_REQUEST)
    if summary["state"] == "stopped":
        Tracker(reference).finish("KILLED")
    return summary


@contextmanager
def training_worker(run: Folder, setup: Callable[[], None] | None) -> Iterator[Place]:
    """The place of this Ray Train worker; a failure that ends the run goes into its summary.

    Args:
        run: Run directory.
        setup: Called first, to configure the log.
    """
    if setup is not None:
        setup()
    quiet_reports()
    place = place_of_worker()
    try:
        yield place
    except tuple(FINAL_ERRORS.values()) as error:
        if place.is_first:
            run.write_json(SUMMARY, failure_summary(error))
