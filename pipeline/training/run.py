"""The driver of a training run: claims the run directory, starts workers, reads how it ended."""

from __future__ import annotations

import logging
import signal
import types
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray.train
import yaml

from pipeline.errors import IncompleteError, NonFiniteError, SettingsError
from pipeline.settings import flatten, save_settings
from pipeline.storage import Folder
from pipeline.tracking import closing_run, open_run
from pipeline.training.checkpoint import CheckpointStore
from pipeline.training.loop import (
    CHECKPOINTS,
    STOP_REQUEST,
    SUMMARY,
    Place,
    Training,
    WorkerPlan,
)
from pipeline.training.settings import TrainSettings
from pipeline.training.setup import model_config, open_tokenizer
from pipeline.training.shards import TrainShards
from pipeline.training.workers import quiet_reports, report_checkpoint, run_group

logger = logging.getLogger(__name__)

SETTINGS = "settings.yaml"
"""The resolved settings, in the run directory."""
CLAIM = "run.json"
"""What a run directory belongs to: identity of settings and shards, and the tracking id."""


def train_run(
    settings: TrainSettings,
    shards: str,
    output: str,
    codec: str | None = None,
    worker_setup: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Train, or go on training, until the last step; Ray must be connected.

    Args:
        settings: Of the run.
        shards: A complete train-shards directory, by URI.
        output: Run directory, by URI; every worker must reach it.
        codec: Codec folder, for samples.
        worker_setup: Called first in every worker, for its log.

    Returns:
        What `summary.json` holds.

    Raises:
        SettingsError: If the directory belongs to a run of other settings or shards.
        NonFiniteError: If the loss diverged.
        PipelineError: If the workers failed for good.
    """
    run, source = Folder.at(output), TrainShards(Folder.at(shards))
    model_config(settings.model, source, open_tokenizer(settings.model))  # fail before Ray starts
    claim = claim_directory(run, settings, source)
    store = CheckpointStore(run.child(CHECKPOINTS))
    newest = (store.steps() or [0])[-1]
    if newest >= settings.optim.num_steps and run.exists(SUMMARY):
        logger.info("%s is finished: step %d is the last", run.uri, newest)
        finished: dict[str, Any] = run.read_json(SUMMARY)
        return finished
    tags = {"shards": source.folder.uri, "shards_digest": source.digest}
    params = settings.model_dump(mode="json")
    reference = open_run(settings.tracking, run.uri, claim["run_id"], params, tags)
    for name in (SUMMARY, STOP_REQUEST):
        run.delete(name)
    plan = WorkerPlan(settings, run.uri, source.folder.uri, reference, codec)
    with closing_run(reference), _stop_on_sigterm(run):
        engine = settings.engine
        run_group(
            _worker,
            {"plan": plan, "setup": worker_setup},
            folder=run.child(CHECKPOINTS),
            num_workers=engine.num_workers,
            resources={"CPU": engine.cpus_per_worker} | ({"GPU": 1.0} if engine.use_gpu else {}),
            max_failures=engine.max_failures,
        )
        summary: dict[str, Any] = run.read_json(SUMMARY)
        if summary["state"] == "failed":
            raise NonFiniteError(summary["error"])
    run.delete(STOP_REQUEST)
    return summary


def claim_directory(run: Folder, settings: TrainSettings, shards: TrainShards) -> dict[str, str]:
    """Make a directory this run's, or check that it is; returns its claim.

    Raises:
        SettingsError: If it belongs to another run, naming what differs.
    """
    wanted = {"identity": settings.identity(), "shards": shards.digest}
    if run.exists(CLAIM):
        claim: dict[str, str] = run.read_json(CLAIM)
        if claim["shards"] != wanted["shards"]:
            raise SettingsError(
                f"{run.uri} was trained on other shards than {shards.folder.uri} holds now; give "
                "--output a new directory, or go on with the shards it began with"
            )
        if claim["identity"] != wanted["identity"]:
            raise SettingsError(
                f"{run.uri} belongs to a run with other settings ({_differences(run, settings)}); "
                "give --output a new directory, or take these settings back"
            )
    else:
        if run.child(CHECKPOINTS).exists():
            raise SettingsError(f"{run.uri} holds checkpoints but no {CLAIM}; give a new directory")
        claim = {**wanted, "run_id": uuid.uuid4().hex}
        run.write_json(CLAIM, claim)
    run.write_bytes(SETTINGS, save_settings(settings).encode())
    return claim


def load_run_settings(run: Folder) -> TrainSettings:
    """The settings a run directory was last started with.

    Raises:
        IncompleteError: If it holds none.
    """
    if not run.exists(SETTINGS):
        raise IncompleteError(f"{run.uri} is no run directory: it holds no {SETTINGS}")
    return TrainSettings.model_validate(yaml.safe_load(run.read_bytes(SETTINGS)))


def _differences(run: Folder, settings: TrainSettings) -> str:
    if not run.exists(SETTINGS):
        return f"its {SETTINGS} is gone"
    old = flatten(yaml.safe_load(run.read_bytes(SETTINGS)))
    new = flatten(settings.model_dump(mode="json"))
    free = ("engine.", "checkpoint.", "sample.", "tracking.", "log_every")
    changed = [
        f"{key}: {old.get(key)} there, {new.get(key)} now"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not key.startswith(free)
    ]
    return "; ".join(changed[:5]) or "of another version of this program"


def _worker(config: dict[str, Any]) -> None:
    """What runs in every Ray Train worker."""
    if config["setup"] is not None:
        config["setup"]()
    quiet_reports()
    plan: WorkerPlan = config["plan"]
    context = ray.train.get_context()
    place = Place(
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        device=ray.train.torch.get_device(),
        report=report_checkpoint,
        is_preempted=lambda: ray.train.get_preemption_info() is not None,
    )
    try:
        Training(plan, place).run()
    except NonFiniteError as error:
        # Raised by every worker at once and by every restart again: no failure to recover from.
        if place.rank == 0:
            Folder.at(plan.run).write_json(SUMMARY, {"state": "failed", "error": str(error)})


@contextmanager
def _stop_on_sigterm(run: Folder) -> Iterator[None]:
    """On SIGTERM, ask the workers to save and end; only the main thread can listen for it."""

    def ask(number: int, frame: types.FrameType | None) -> None:
        logger.warning("SIGTERM: saving a checkpoint, then ending")
        run.write_bytes(STOP_REQUEST, b"SIGTERM\n")

    try:
        previous = signal.signal(signal.SIGTERM, ask)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
