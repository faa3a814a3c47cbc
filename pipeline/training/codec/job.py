"""The Ray Train job around the codec's training loop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

from model.codec.registry import codec_digest
from pipeline.storage import COMPLETE, Folder
from pipeline.tracking import open_run
from pipeline.training.codec.loop import METRICS, run_worker
from pipeline.training.codec.settings import TrainCodecSettings
from pipeline.training.driver import train_claimed, training_worker
from pipeline.training.rundir import claim_run

logger = logging.getLogger(__name__)


def train_codec(
    settings: TrainCodecSettings,
    clips: Folder,
    output: Folder,
    worker_setup: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Train a codec on Ray Train; the same call again continues, or reports that it is done.

    Args:
        settings: The recipe.
        clips: Complete `clips/` directory.
        output: Directory that receives `codec/`, `checkpoints/`, `reconstructions/`, `metrics.json`
            and the resolved settings.
        worker_setup: Called first in every worker, to configure its log.

    Returns:
        The metrics, as in `metrics.json`; or `state`, `step` and `num_steps` of a run that was
        asked to stop.

    Raises:
        IncompleteError: If the clips are not complete.
        SettingsError: If the output belongs to a run with other settings or clips.
        NonFiniteError: If a loss diverged.
        DiskFullError: If there is no room for the checkpoints.
        DamagedError: If no checkpoint of an earlier start is good any more.
        KeyboardInterrupt: On a second Ctrl-C; the first one saves a checkpoint and ends the run.
        PipelineError: If the workers failed more often than the recipe allows.
    """
    clips.card("ingest")
    claim = _claim(output, settings, clips)
    finished = _finished(output, settings.optim.num_steps)
    if finished is not None:
        return finished
    output.delete(METRICS)
    output.sweep()
    values = settings.model_dump(mode="json")
    tags = {"audiocalm.job": "train-codec"}
    reference = open_run(settings.tracking, output.uri, claim["run_id"], values, tags)
    config = {
        "settings": values,
        "clips": clips.uri,
        "output": output.uri,
        "run": reference,
        "setup": worker_setup,
    }
    summary = train_claimed(output, claim, reference, _worker, config, settings.resources)
    if summary["state"] == "stopped":
        return summary
    metrics: dict[str, Any] = output.read_json(METRICS)
    return metrics


def _claim(output: Folder, settings: TrainCodecSettings, clips: Folder) -> dict[str, Any]:
    """Claim a directory for this run, or check its claim; returns the claim."""
    inputs = {"clips": clips.read_bytes(COMPLETE).decode().strip()}
    if settings.init_from is not None:
        inputs["init_from"] = codec_digest(settings.init_from)
    options = {"clips": "--clips", "init_from": "init_from"}
    return claim_run(output, settings, inputs, settings.optim.num_steps, options)


def _finished(output: Folder, num_steps: int) -> dict[str, Any] | None:
    """The metrics of a run that took its last step; None if there is work."""
    if not output.exists(METRICS):
        return None
    metrics: dict[str, Any] = output.read_json(METRICS)
    if metrics["steps"] < num_steps:
        return None
    logger.info("%s is finished; nothing to do", output.uri)
    return metrics


def _worker(config: dict[str, Any]) -> None:
    """The function that every Ray Train worker runs."""
    output = Folder.at(config["output"])
    with training_worker(output, config["setup"]) as place:
        if place.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
        run_worker(
            TrainCodecSettings.model_validate(config["settings"]),
            Folder.at(config["clips"]),
            output,
            place=place,
            run=config["run"],
        )
