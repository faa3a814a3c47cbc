"""The Ray Train job around the codec's training loop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import yaml

from model.codec.registry import codec_digest
from pipeline.cluster import ray_cluster
from pipeline.errors import SettingsError
from pipeline.settings import digest_of, save_settings
from pipeline.storage import COMPLETE, Folder
from pipeline.tracking import RunReference, Tracker, closing_run, open_run
from pipeline.training.codec.checkpoint import checkpoint_steps
from pipeline.training.codec.loop import CHECKPOINTS, METRICS, Worker, run_worker
from pipeline.training.codec.settings import TrainCodecSettings
from pipeline.training.rundir import STOP_REQUEST, SUMMARY, change_tags, changed_settings
from pipeline.training.settings import ADJUSTABLE_OPTIM
from pipeline.training.workers import FINAL_ERRORS, failure_summary, quiet_reports, run_group

logger = logging.getLogger(__name__)

_RUN = "run.json"
_SETTINGS = "settings.yaml"
_RAY = "ray-train"
_OPERATIONAL = {
    "resources",
    "tracking",
    "checkpoint_every",
    "checkpoints_kept",
    "log_every",
    "validation_crops",
    "reconstructions",
    "reconstruction_s",
}
"""Settings that may change between restarts, since they do not affect the weights."""
_ADJUSTABLE = (*(f"optim.{name}" for name in ADJUSTABLE_OPTIM), "crops.skip_steps")
"""Settings that may change when a run is resumed; every change is recorded in `run.json`."""


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
    identity = {
        "settings": _identity(settings),
        "clips": clips.read_bytes(COMPLETE).decode().strip(),
    }
    if settings.init_from is not None:
        identity["init_from"] = codec_digest(settings.init_from)
    claim = _claim(output, identity, settings)
    if output.exists(METRICS):
        finished: dict[str, Any] = output.read_json(METRICS)
        if finished["steps"] >= settings.optim.num_steps:
            logger.info("%s is finished; nothing to do", output.uri)
            return finished
    for name in (METRICS, SUMMARY, STOP_REQUEST):
        output.delete(name)
    output.sweep()
    output.write_bytes(_SETTINGS, save_settings(settings).encode())
    tracked_as = {name: claim[name] for name in identity}
    run = open_run(
        settings.tracking,
        output.uri,
        digest_of({**tracked_as, "output": output.uri}),
        settings.model_dump(mode="json"),
        {"audiocalm.job": "train-codec"},
    )
    with closing_run(run) as tracker, ray_cluster():
        tracker.log_tags(change_tags(claim))
        _fit(
            settings,
            output,
            {
                "settings": settings.model_dump(mode="json"),
                "clips": clips.uri,
                "output": output.uri,
                "run": None if run is None else (run.uri, run.run_id),
                "setup": worker_setup,
            },
        )
    if output.exists(METRICS):
        metrics: dict[str, Any] = output.read_json(METRICS)
        return metrics
    output.delete(STOP_REQUEST)
    Tracker(run).finish("KILLED")
    steps = checkpoint_steps(output.child(CHECKPOINTS))
    stopped = {
        "state": "stopped",
        "step": (steps or [0])[-1],
        "num_steps": settings.optim.num_steps,
    }
    output.write_json(SUMMARY, stopped)
    return stopped


def _identity(settings: TrainCodecSettings) -> str:
    """Digest of the settings that identify a run; the others may change and are recorded."""
    values = settings.model_dump(mode="json", exclude=_OPERATIONAL)
    for name in ADJUSTABLE_OPTIM:
        values["optim"].pop(name)
    values["crops"].pop("skip_steps")
    return digest_of(values)


def _claim(
    output: Folder, identity: dict[str, str], settings: TrainCodecSettings
) -> dict[str, Any]:
    """Claim a directory for this run, or check its claim; returns the claim."""
    if not output.exists(_RUN):
        output.write_json(_RUN, identity)
        return dict(identity)
    claim: dict[str, Any] = output.read_json(_RUN)
    old = yaml.safe_load(output.read_bytes(_SETTINGS)) if output.exists(_SETTINGS) else None
    for name, value in identity.items():
        if claim.get(name) != value and not (name == "settings" and _is_same(old, value)):
            raise SettingsError(
                f"{output.uri} belongs to a run with other {name}; give the same {name} to "
                "continue, or another --output"
            )
    newest = (checkpoint_steps(output.child(CHECKPOINTS)) or [0])[-1]
    if newest > settings.optim.num_steps:
        raise SettingsError(
            f"optim.num_steps is {settings.optim.num_steps} and {output.uri} has reached step "
            f"{newest}; give at least {newest}, or another --output"
        )
    changes = changed_settings(old or {}, settings.model_dump(mode="json"), _ADJUSTABLE)
    change = {"step": newest, "settings": changes}
    if old is not None and changes and claim.get("changes", [])[-1:] != [change]:
        for key, (before, now) in changes.items():
            logger.info("%s changes from %s to %s at step %d", key, before, now, newest)
        claim["changes"] = [*claim.get("changes", []), change]
        output.write_json(_RUN, claim)
    return claim


def _is_same(old: Any, identity: str) -> bool:
    """Whether settings of an earlier version, whose identity held more, are of the same run."""
    try:
        return _identity(TrainCodecSettings.model_validate(old)) == identity
    except ValueError:
        return False


def _fit(settings: TrainCodecSettings, output: Folder, config: dict[str, Any]) -> None:
    resources, storage = settings.resources, output.child(_RAY)
    run_group(
        _worker_main,
        config,
        folder=storage,
        num_workers=resources.workers,
        resources={"CPU": resources.cpus_per_worker} | ({"GPU": 1} if resources.use_gpu else {}),
        max_failures=resources.max_failures,
        request_stop=lambda name: output.write_bytes(STOP_REQUEST, f"{name}\n".encode()),
    )
    if output.exists(SUMMARY):
        failure = output.read_json(SUMMARY)
        raise FINAL_ERRORS[failure["kind"]](failure["error"])
    if storage.exists():
        storage.filesystem.delete_dir(storage.path)


def _worker_main(config: dict[str, Any]) -> None:
    import ray.train
    import torch
    from ray.train.torch import get_device

    if config["setup"] is not None:
        config["setup"]()
    quiet_reports()
    context = ray.train.get_context()
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
    worker = Worker(context.get_world_rank(), context.get_world_size(), str(get_device()))
    output = Folder.at(config["output"])
    try:
        run_worker(
            TrainCodecSettings.model_validate(config["settings"]),
            Folder.at(config["clips"]),
            output,
            worker=worker,
            run=None if config["run"] is None else RunReference(*config["run"]),
            report=ray.train.report,
        )
    except tuple(FINAL_ERRORS.values()) as error:
        if worker.rank == 0:
            output.write_json(SUMMARY, failure_summary(error))
