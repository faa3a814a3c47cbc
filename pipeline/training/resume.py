"""Where a run continues: the newest checkpoint that is good, the same on all workers."""

from __future__ import annotations

import logging
from collections.abc import Collection

import torch

from pipeline.errors import DamagedError
from pipeline.training.checkpoint import load_checkpoint
from pipeline.training.checkpoint_store import CheckpointStore
from pipeline.training.engine import TrainEngine

logger = logging.getLogger(__name__)


def load_newest(store: CheckpointStore, engine: TrainEngine, rank: int) -> tuple[int, int]:
    """Load the newest good checkpoint; every worker takes part.

    The first worker removes what an interrupted save has left, and checkpoints that turn out to be
    damaged.

    Args:
        store: Checkpoints of the run.
        engine: Model and optimiser to fill.
        rank: Rank of this worker.

    Returns:
        Step of the checkpoint and number of updates until then; zeros without one.

    Raises:
        DamagedError: On every worker, if none of the complete checkpoints is good any more.
        IncompleteError: If the checkpoint is of another model.
    """
    is_first, updates = rank == 0, 0
    for number in store.sweep() if is_first else ():
        logger.warning("removed the incomplete checkpoint of step %d", number)
    cut_short = [store.damaged() if is_first else []]
    torch.distributed.broadcast_object_list(cut_short, src=0)
    damage = dict.fromkeys(cut_short[0], "a file is missing or cut short")
    while step := _newest_but(store, damage, is_first):
        try:
            updates = load_checkpoint(store, engine, step)
            break
        except DamagedError as error:
            damage[step] = str(error)
    if damage and not step:
        raise DamagedError(
            f"no checkpoint in {store.folder.uri} is good any more ("
            f"{'; '.join(f'step {n}: {said}' for n, said in sorted(damage.items()))}); restore "
            "one, or remove that directory to train from the beginning"
        )
    for number, said in sorted(damage.items()) if is_first else ():
        logger.warning(
            "the checkpoint of step %d is damaged and removed (%s); step %d takes its place",
            number,
            said,
            step,
        )
        store.remove(number)
    if step and is_first:
        logger.info("continuing from step %d", step)
    return step, updates


def _newest_but(store: CheckpointStore, damage: Collection[int], is_first: bool) -> int:
    """The newest checkpoint without known damage, 0 if there is none; the same everywhere."""
    steps = store.steps() if is_first else []
    found = [max((step for step in steps if step not in damage), default=0)]
    torch.distributed.broadcast_object_list(found, src=0)
    return found[0]
