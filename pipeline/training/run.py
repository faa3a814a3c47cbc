"""The driver of a training run: it claims the run directory, starts workers, reads the result."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model.config import ModelConfig
from model.cost import sizes
from pipeline.errors import SettingsError
from pipeline.storage import Folder
from pipeline.tracking import open_run
from pipeline.training.alignment import align
from pipeline.training.checkpoint import has_base
from pipeline.training.checkpoint_store import CheckpointStore
from pipeline.training.driver import train_claimed, training_worker
from pipeline.training.engine import check_compiler
from pipeline.training.export import check_codec
from pipeline.training.feed import Feed
from pipeline.training.hardware import base_bytes, checkpoint_bytes
from pipeline.training.init_from import find_parent, with_architecture
from pipeline.training.loop import Training, WorkerPlan
from pipeline.training.lora import num_trained
from pipeline.training.parent import Parent
from pipeline.training.rundir import CHECKPOINTS, SUMMARY, claim_directory
from pipeline.training.settings import TrainSettings
from pipeline.training.setup import model_config, open_tokenizer, shards_for
from pipeline.training.shards import TrainShards
from pipeline.training.validation import validation_feed

logger = logging.getLogger(__name__)


def train_run(
    settings: TrainSettings,
    shards: str,
    output: str,
    codec: str | None = None,
    worker_setup: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Train, or continue training, until the last step; Ray starts only if there is work.

    Args:
        settings: The run's settings.
        shards: A complete train-shards directory, by URI.
        output: Run directory, by URI; every worker must reach it.
        codec: Codec folder, for samples.
        worker_setup: Called first in every worker, to configure its log.

    Returns:
        The contents of `summary.json`.

    Raises:
        SettingsError: If the directory belongs to a run of other settings, shards or weights, the
            codec is not that of the shards, or the weights to start from do not fit.
        NonFiniteError: If the loss diverged.
        DiskFullError: If there is no room for the checkpoints.
        DamagedError: If no checkpoint of an earlier start is good any more.
        KeyboardInterrupt: On a second Ctrl-C; the first one saves a checkpoint and ends the run.
        PipelineError: If the workers failed for good.
    """
    run = Folder.at(output)
    parent = find_parent(run, settings.model.init_from)
    if parent is not None:
        settings = with_architecture(settings, parent)
    source = shards_for(Folder.at(shards), parent)
    model = _check_feed(settings, source, parent)
    trained = num_trained(model, settings.model.lora)
    folder = _codec_folder(codec, source, settings)
    claim = claim_directory(run, settings, source, parent)
    store = CheckpointStore(run.child(CHECKPOINTS))
    finished = _finished(run, store, settings.optim.num_steps)
    if finished is not None:
        return finished
    if model.paces_speech:
        align(run, source.folder, open_tokenizer(settings.model))
    store.check_space(
        checkpoint_bytes(trained),
        settings.checkpoint.most_at_once(settings.optim.num_steps) - 1,
        0 if settings.model.lora is None or has_base(store) else base_bytes(sizes(model).total),
    )
    tags = {"shards": source.folder.uri, "shards_digest": source.digest}
    if parent is not None:
        tags |= {f"parent_{name}": str(value) for name, value in parent.facts().items()}
    params = settings.model_dump(mode="json")
    reference = open_run(settings.tracking, run.uri, claim["run_id"], params, tags)
    plan = WorkerPlan(settings, run.uri, source.folder.uri, reference, folder)
    config = {"plan": plan, "setup": worker_setup}
    return train_claimed(run, claim, reference, _worker, config, settings.engine)


def _check_feed(settings: TrainSettings, shards: TrainShards, parent: Parent | None) -> ModelConfig:
    """Find errors that would fail every worker on every restart.

    Returns:
        Configuration of the model.
    """
    check_compiler(settings)
    tokenizer = open_tokenizer(settings.model)
    config = model_config(settings.model, shards, tokenizer, parent)
    feed = Feed(shards, settings.feed, config, tokenizer, settings.seed)
    if settings.validation.every:
        validation_feed(settings, shards.folder, parent, config, tokenizer)
    if feed.num_left_out:
        logger.warning(
            "%d of %d clips are left out: their text leaves no room for one block in "
            "pack_length %d",
            feed.num_left_out,
            len(shards),
            settings.feed.pack_length,
        )
    for modality, share in feed.unheard.items():
        logger.warning(
            "no clip of %s is ever drawn: there are so few that the share would be %.2g; set a "
            "share of at least 0.001, or 0, in feed.modality_weights",
            modality,
            share,
        )
    return config


def _codec_folder(codec: str | None, shards: TrainShards, settings: TrainSettings) -> str | None:
    """Absolute path of the codec for samples, which must be the one of the shards."""
    if codec is not None:
        check_codec(Path(codec), shards.codec)
        return str(Path(codec).resolve())
    if settings.sample.every:
        raise SettingsError("sample.every asks for audio, which needs the codec; give --codec")
    return None


def _finished(run: Folder, store: CheckpointStore, num_steps: int) -> dict[str, Any] | None:
    """The summary of a run that took its last step; None if there is work."""
    newest = (store.steps() or [0])[-1]
    if newest < num_steps or not run.exists(SUMMARY):
        return None
    summary: dict[str, Any] = run.read_json(SUMMARY)
    if summary["state"] != "finished":
        return None
    logger.info("%s is finished: step %d is the last", run.uri, newest)
    return summary


def _worker(config: dict[str, Any]) -> None:
    """The function that every Ray Train worker runs."""
    plan: WorkerPlan = config["plan"]
    with training_worker(Folder.at(plan.run), config["setup"]) as place:
        Training(plan, place).run()
