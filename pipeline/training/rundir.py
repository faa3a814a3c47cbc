"""A run directory: whose it is, and what it was started with.

settings.yaml         resolved settings of the last start
run.json              identity of settings and shards, id of the run
voices.safetensors    mean embedding of the speakers heard most, for the bundle
checkpoints/          `pipeline.training.checkpoint`
metrics.jsonl         every logged step
samples/              audio of the weight average, by step
summary.json          how the run ended
"""

from __future__ import annotations

import uuid

import torch
import yaml
from safetensors.torch import load, save
from torch import Tensor

from pipeline.errors import IncompleteError, SettingsError
from pipeline.settings import flatten, save_settings
from pipeline.storage import Folder
from pipeline.training.settings import TrainSettings
from pipeline.training.shards import TrainShards

SETTINGS = "settings.yaml"
CLAIM = "run.json"
VOICES = "voices.safetensors"
CHECKPOINTS = "checkpoints"
SAMPLES = "samples"
SUMMARY = "summary.json"
STOP_REQUEST = "stop_request"
"""A file of this name ends the run after its current step."""

NUM_VOICES = 8
"""Speakers whose voice is kept for the bundle."""


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
        voices = {
            name: torch.from_numpy(value) for name, value in shards.voices(NUM_VOICES).items()
        }
        run.write_bytes(VOICES, save(voices))
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
        raise IncompleteError(
            f"{run.uri} is no run directory, it holds no {SETTINGS}; give that of a training"
        )
    return TrainSettings.model_validate(yaml.safe_load(run.read_bytes(SETTINGS)))


def load_voices(run: Folder) -> dict[str, Tensor]:
    """Speaker embeddings by voice name."""
    found: dict[str, Tensor] = load(run.read_bytes(VOICES)) if run.exists(VOICES) else {}
    return found


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
