"""Resuming a run from the newest checkpoint that is good, the same one on all workers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection

from pipeline.errors import DamagedError
from pipeline.training.checkpoint_store import CheckpointStore
from pipeline.training.place import Place

logger = logging.getLogger(__name__)


def load_newest(
    store: CheckpointStore, load: Callable[[int], Callable[[], None]], place: Place
) -> int:
    """Load the newest good checkpoint; every worker takes part.

    The first worker removes what an interrupted save has left, and checkpoints that turn out to be
    damaged.

    Args:
        store: Checkpoints of the run.
        load: Reads the checkpoint of a step and returns what completes it, which is called when
            every worker has read its part; raises `DamagedError` if this worker cannot.
        place: Place of this worker.

    Returns:
        Step of the checkpoint; 0 without one.

    Raises:
        DamagedError: On every worker, if none of the complete checkpoints is good any more.
        IncompleteError: If the checkpoint is of another model.
    """
    for number in store.sweep() if place.is_first else ():
        logger.warning("removed the incomplete checkpoint of step %d", number)
    cut_short = place.from_first(store.damaged() if place.is_first else [])
    damage = dict.fromkeys(cut_short, "a file is missing or cut short")
    while step := place.from_first(_newest_but(store, damage) if place.is_first else 0):
        problem, restore = "", None
        try:
            restore = load(step)
        except DamagedError as error:
            problem = str(error)
        problems = [said for said in place.gather(problem) if said]
        if restore is not None and not problems:
            restore()
            break
        damage[step] = problems[0]
    if damage and not step:
        raise DamagedError(
            f"no checkpoint in {store.folder.uri} is good any more ("
            f"{'; '.join(f'step {n}: {said}' for n, said in sorted(damage.items()))}); restore "
            "one, or remove that directory to train from the beginning"
        )
    if place.is_first:
        _replace(store, damage, step)
    return step


def _newest_but(store: CheckpointStore, damage: Collection[int]) -> int:
    """The newest checkpoint without known damage; 0 if there is none."""
    return max((step for step in store.steps() if step not in damage), default=0)


def _replace(store: CheckpointStore, damage: dict[int, str], step: int) -> None:
    """Remove damaged checkpoints, and log where the run continues."""
    for number, said in sorted(damage.items()):
        logger.warning(
            "the checkpoint of step %d is damaged and removed (%s); step %d takes its place",
            number,
            said,
            step,
        )
        store.remove(number)
    if step:
        logger.info("continuing from step %d", step)
