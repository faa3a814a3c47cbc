"""The Ray Train job around the codec's training loop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from model.codec.registry import codec_digest
from pipeline.cluster import ray_cluster
from pipeline.errors import SettingsError
from pipeline.settings import digest_of, save_settings
from pipeline.storage import COMPLETE, Folder
from pipeline.tracking import RunReference, closing_run, open_run
from pipeline.training.codec_loop import METRICS, Worker, run_worker
from pipeline.training.codec_settings import TrainCodecSettings
from pipeline.training.workers import quiet_reports, run_group

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
"""Settings that may change between restarts: they leave the weights as they are."""


def train_codec(
    settings: TrainCodecSettings,
    clips: Folder,
    output: Folder,
    worker_setup: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Train a codec on Ray Train; the same call again goes on, or says that it is done.

    Args:
        settings: The recipe.
        clips: Complete `clips/` directory.
        output: Receives `codec/`, `checkpoints/`, `reconstructions/`, `metrics.json` and the
            resolved settings.
        worker_setup: Called first in every worker, for its log.

    Returns:
        The metrics, as in `metrics.json`.

    Raises:
        IncompleteError: If the clips are not complete.
        SettingsError: If the output belongs to a run with other settings or clips.
        PipelineError: If the workers failed more often than the recipe allows.
    """
    clips.card("ingest")
    identity = {
        "settings": digest_of(settings.model_dump(mode="json", exclude=_OPERATIONAL)),
        "clips": clips.read_bytes(COMPLETE).decode().strip(),
    }
    if settings.init_from is not None:
        identity["init_from"] = codec_digest(settings.init_from)
    _claim(output, identity)
    if output.exists(METRICS):
        logger.info("%s is finished; nothing to do", output.uri)
        finished: dict[str, Any] = output.read_json(METRICS)
        return finished
    output.sweep()
    output.write_bytes(_SETTINGS, save_settings(settings).encode())
    run = open_run(
        settings.tracking,
        output.uri,
        digest_of({**identity, "output": output.uri}),
        settings.model_dump(mode="json"),
        {"audiocalm.job": "train-codec"},
    )
    with closing_run(run), ray_cluster():
        _fit(
            settings,
            output.child(_RAY),
            {
                "settings": settings.model_dump(mode="json"),
                "clips": clips.uri,
                "output": output.uri,
                "run": None if run is None else (run.uri, run.run_id),
                "setup": worker_setup,
            },
        )
    metrics: dict[str, Any] = output.read_json(METRICS)
    return metrics


def _claim(output: Folder, identity: dict[str, str]) -> None:
    if not output.exists(_RUN):
        output.write_json(_RUN, identity)
        return
    found = output.read_json(_RUN)
    for name, value in identity.items():
        if found.get(name) != value:
            raise SettingsError(
                f"{output.uri} belongs to a run with other {name}; give the same {name} to go on, "
                "or another --output"
            )


def _fit(settings: TrainCodecSettings, storage: Folder, config: dict[str, Any]) -> None:
    resources = settings.resources
    run_group(
        _worker_main,
        config,
        folder=storage,
        num_workers=resources.workers,
        resources={"CPU": resources.cpus_per_worker} | ({"GPU": 1} if resources.use_gpu else {}),
        max_failures=resources.max_failures,
    )
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
    run_worker(
        TrainCodecSettings.model_validate(config["settings"]),
        Folder.at(config["clips"]),
        Folder.at(config["output"]),
        worker=worker,
        run=None if config["run"] is None else RunReference(*config["run"]),
        report=ray.train.report,
    )
