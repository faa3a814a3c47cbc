"""A group of Ray Train workers: its start, restarts after a loss, and its error message."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray.train
from ray.train.torch import TorchConfig, TorchTrainer

from pipeline.cluster import require_resources
from pipeline.errors import PipelineError
from pipeline.storage import Folder
from pipeline.training.place import Place
from pipeline.training.signals import wait_for

_SNAPSHOT = "checkpoint_manager_snapshot.json"
_GROUP_START_S = 1800


def run_group(
    worker: Callable[[dict[str, Any]], None],
    config: dict[str, Any],
    *,
    folder: Folder,
    num_workers: int,
    resources: Mapping[str, float],
    max_failures: int,
    request_stop: Callable[[str], None],
) -> None:
    """Run a function in every worker of a `torch.distributed` group until all return.

    SIGTERM and SIGINT (Ctrl-C) ask the workers to stop and wait until they have; a second Ctrl-C
    interrupts at once.

    The function itself finds where to resume, by markers on disk. Ray Train is informed of
    checkpoints, but its snapshot of an earlier start is dropped: it is written after the
    checkpoint that it names, refuses another Ray version, and fails if a checkpoint was removed.

    Args:
        worker: Called with `config` in every worker.
        config: Argument of `worker`.
        folder: Directory of the checkpoints that workers report; reachable by all of them.
        num_workers: Size of the group.
        resources: Resources of one worker; with a `GPU` the group uses NCCL, else gloo.
        max_failures: Restarts of the group; -1 has no limit.
        request_stop: Called with the name of a signal; makes the workers save and return.

    Raises:
        SettingsError: If the connected Ray can never hold the group.
        KeyboardInterrupt: On a second Ctrl-C.
        PipelineError: If the group failed for good, with the message of the worker that failed.
    """
    remedy = "lower the number of workers or the CPUs of a worker, or train on other hardware"
    require_resources("training", resources, num_workers, remedy=remedy)
    folder.delete(_SNAPSHOT)
    is_local = not os.environ.get("RAY_ADDRESS")
    use_gpu = resources.get("GPU", 0) > 0
    trainer = (_LocalTrainer if is_local else TorchTrainer)(
        worker,
        train_loop_config=config,
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=num_workers, use_gpu=use_gpu, resources_per_worker=dict(resources)
        ),
        run_config=_run_config(folder, max_failures),
    )
    try:
        with _ray_train_environment(is_local):
            wait_for(trainer.fit, request_stop)
    except ray.train.TrainingFailedError as error:
        raise PipelineError(f"training failed: {_cause(error)}") from error


def _run_config(folder: Folder, max_failures: int) -> ray.train.RunConfig:
    """Ray Train's run: its directory is that of the checkpoints, its log warnings only."""
    return ray.train.RunConfig(
        name=os.path.basename(folder.path),
        storage_path=os.path.dirname(folder.path),
        storage_filesystem=folder.filesystem,
        failure_config=ray.train.FailureConfig(max_failures=max_failures),
        logging_config=ray.train.LoggingConfig(log_level="WARNING"),
    )


def place_of_worker() -> Place:
    """The place of the Ray Train worker that calls this; its checkpoints are reported to Ray."""
    context = ray.train.get_context()
    return Place(
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        device=ray.train.torch.get_device(),
        report=_report_checkpoint,
        is_preempted=_has_notice,
    )


def _has_notice() -> bool:
    """Whether Ray knows of an announced eviction; a barrier, so that every worker calls this."""
    return ray.train.get_preemption_info() is not None


def _report_checkpoint(metrics: dict[str, Any], folder: Folder) -> None:
    """Report a checkpoint to Ray Train that already lies in the folder of `run_group`."""
    ray.train.report(
        metrics,
        checkpoint=ray.train.Checkpoint(folder.path, folder.filesystem),
        checkpoint_dir_name=os.path.basename(folder.path),
        checkpoint_upload_mode=ray.train.CheckpointUploadMode.NO_UPLOAD,
    )


def quiet_reports() -> None:
    """Silence the line that Ray Train logs for every report and rank."""
    from ray.train.v2._internal.execution import context

    context.logger.setLevel(logging.WARNING)


class _LocalTrainer(TorchTrainer):
    """A trainer for a Ray that ends with its driver.

    Ray Train starts a detached actor that frees placement groups when a controller dies. It
    polls the dashboard every second, which a local Ray does not have, and logs warnings.
    """

    def _create_default_callbacks(self) -> list[Any]:
        made = super()._create_default_callbacks()
        return [one for one in made if type(one).__name__ != "PlacementGroupCleanerCallback"]


@contextmanager
def _ray_train_environment(is_local: bool) -> Iterator[None]:
    """Ray Train's own settings, which it reads from the environment; values there go first.

    Ray gives a worker group 60 s to start, but nodes that an autoscaler adds take minutes. The
    cluster is polled for announced evictions, of which a laptop has none.
    """
    defaults = {
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(_GROUP_START_S),
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": str(int(not is_local)),
    }
    added = {name: value for name, value in defaults.items() if not os.environ.get(name)}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _cause(error: ray.train.TrainingFailedError) -> str:
    """The last line of the first worker's failure."""
    failures = getattr(error, "worker_failures", None) or {}
    for _, failure in sorted(failures.items()):
        lines = str(failure).strip().splitlines() or [type(failure).__name__]
        logging.getLogger(__name__).debug("worker failure: %s", failure)
        return lines[-1]
    return str(error)
