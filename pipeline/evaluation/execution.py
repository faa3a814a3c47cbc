"""Runs clip tasks in this process, or in worker processes on Ray."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydantic import Field

from pipeline.errors import PipelineError, UnitsFailedError
from pipeline.evaluation.clip_worker import ClipTask, ClipWorker
from pipeline.settings import Settings

logger = logging.getLogger(__name__)

_MAX_DEATHS = 2
_MAX_LISTED = 5


class EvaluationResources(Settings):
    """Processes of an evaluation. The results do not depend on them."""

    workers: int = Field(default=2, ge=0)
    """Number of worker processes; 0 evaluates in the calling process, without Ray."""
    cpus: float = Field(default=1.0, gt=0)
    """Logical CPUs of one worker."""
    gpus: float = Field(default=0.0, ge=0)
    """GPUs of one worker, which then generates on a GPU; a fraction shares one."""


def run_tasks(
    tasks: Sequence[ClipTask],
    worker_kwargs: dict[str, Any],
    resources: EvaluationResources,
    on_progress: Callable[[int, int], None],
) -> None:
    """Do all tasks; a clip that fails does not stop the others.

    Args:
        tasks: Tasks to do.
        worker_kwargs: Picklable arguments of `ClipWorker`.
        resources: Number and size of the workers.
        on_progress: Called with the number of tasks done and of all tasks.

    Raises:
        UnitsFailedError: If clips failed, with their errors; the others stay in the cache.
        PipelineError: If a worker process died three times.
        SettingsError: If the cluster can never hold a worker.
    """
    failures = []
    for done, failure in enumerate(_results(tasks, worker_kwargs, resources), 1):
        if failure:
            failures.append(failure)
        on_progress(done, len(tasks))
    if failures:
        more = len(failures) - _MAX_LISTED
        listed = [*failures[:_MAX_LISTED], *([f"and {more} more"] if more > 0 else [])]
        raise UnitsFailedError(
            f"evaluate: {len(failures)} of {len(tasks)} clips failed, the others are kept: "
            f"{'; '.join(listed)}; running again does only these"
        )


def _results(
    tasks: Sequence[ClipTask], worker_kwargs: dict[str, Any], resources: EvaluationResources
) -> Iterator[str]:
    if not tasks:
        return
    if resources.workers == 0:
        worker = ClipWorker(**worker_kwargs)
        yield from (worker.process(task) for task in tasks)
        return
    import ray
    from ray.util import ActorPool

    from pipeline.cluster import ray_cluster, require_resources

    with ray_cluster():
        asked = {"CPU": resources.cpus, "GPU": resources.gpus}
        remedy = "lower resources.cpus or resources.gpus, or start nodes that have them"
        require_resources("evaluate", asked, remedy=remedy)
        actor: Any = ray.remote(
            num_cpus=resources.cpus,
            num_gpus=resources.gpus,
            max_restarts=_MAX_DEATHS,
            max_task_retries=_MAX_DEATHS,
        )(ClipWorker)
        count = min(resources.workers, len(tasks))
        pool = ActorPool([actor.remote(**worker_kwargs) for _ in range(count)])
        try:
            yield from pool.map_unordered(lambda one, task: one.process.remote(task), list(tasks))
        except ray.exceptions.RayError as error:
            raise PipelineError(
                f"evaluate: a worker process died {_MAX_DEATHS + 1} times ({error}); evaluated "
                "clips are kept: run again with fewer workers, or look at the worker's log"
            ) from error
