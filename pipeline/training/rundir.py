"""A run directory: the run that it belongs to, and the settings it was started with.

settings.yaml         resolved settings of the last start
run.json              identity of settings, shards and parent, id of the run, settings changed on
                      resume
parent.json           weights that the run started from, where there are any
voices.safetensors    mean embedding of the speakers heard most, for the bundle
alignment/            frames of every word, for a model that paces speech
checkpoints/          `pipeline.training.checkpoint`
metrics.jsonl         every logged step
samples/              audio of the weight average, by step
summary.json          how the run ended
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from model.bundle.voices import Voice, voices_from_bytes, voices_to_bytes
from pipeline.errors import IncompleteError, SettingsError
from pipeline.settings import flatten, save_settings
from pipeline.storage import Folder
from pipeline.training.checkpoint_store import CheckpointStore
from pipeline.training.parent import Parent, note_parent
from pipeline.training.settings import RunSettings, TrainSettings
from pipeline.training.shards import TrainShards
from pipeline.training.voices import most_heard_voices

logger = logging.getLogger(__name__)

SETTINGS = "settings.yaml"
CLAIM = "run.json"
VOICES = "voices.safetensors"
CHECKPOINTS = "checkpoints"
SAMPLES = "samples"
SUMMARY = "summary.json"
STOP_REQUEST = "stop_request"
"""A file of this name in the run directory ends the run after its current step."""

DERIVED = ("latent_dim", "speaker_dim", "speaker_id")
"""Fields of `ModelConfig` that are derived from shards and tokenizer."""
NUM_VOICES = 8
"""Number of speakers whose voice is kept for the bundle."""


def claim_directory(
    run: Folder, settings: TrainSettings, shards: TrainShards, parent: Parent | None = None
) -> dict[str, Any]:
    """Claim a directory for the training of a model, or check its claim; returns the claim.

    A run that starts from a bundle or another run keeps their voices beside those of its shards.

    Raises:
        SettingsError: As `claim_run`, or if it holds checkpoints of an unknown run.
    """
    is_new = not run.exists(CLAIM)
    if is_new and run.child(CHECKPOINTS).exists():
        raise SettingsError(f"{run.uri} holds checkpoints but no {CLAIM}; give a new directory")
    if is_new:  # before the claim: a start that is killed in between is a new one again
        own = most_heard_voices(shards, NUM_VOICES)
        run.write_bytes(VOICES, voices_to_bytes(({} if parent is None else parent.voices) | own))
    inputs = {"shards": shards.digest} | ({} if parent is None else {"parent": parent.digest})
    options = {"shards": "--shards", "parent": "model.init_from"}
    claim = claim_run(run, settings, inputs, settings.optim.num_steps, options)
    if parent is not None:
        note_parent(run, parent)  # on a resume too: it may lie elsewhere now
    return claim


def claim_run(
    run: Folder,
    settings: RunSettings,
    inputs: Mapping[str, str],
    num_steps: int,
    options: Mapping[str, str],
) -> dict[str, Any]:
    """Claim a directory for a run, or check its claim, and write the settings of this start.

    Settings that may change on resume are noted in the claim with the step they changed at.

    Args:
        run: Run directory.
        settings: Settings of this start.
        inputs: Digest of everything else that makes two starts the same run, by name.
        num_steps: Steps of the run by these settings.
        options: Option of the command line that gives each input, by all names that there are.

    Returns:
        The contents of `run.json`: the inputs, the `identity` of the settings, the id of the run
        and its changes.

    Raises:
        SettingsError: If it belongs to another run, naming what differs, or has trained for more
            steps than it should now.
    """
    claim: dict[str, Any] = run.read_json(CLAIM) if run.exists(CLAIM) else dict(inputs)
    for name, option in options.items():
        if claim.get(name) != inputs.get(name):
            raise SettingsError(
                f"{run.uri} was started with {_digest_of(claim, name)} and {option} now gives "
                f"{_digest_of(inputs, name)}; give --output a new directory, or {option} what it "
                "had before"
            )
    identity, earlier = settings.identity(), claim.pop("settings", None)  # its name for a codec
    found = claim.get("identity", earlier)
    if found not in (None, identity) and not _is_same(run, settings):
        raise SettingsError(
            f"{run.uri} belongs to a run with other settings ({_differences(run, settings)}); "
            "give --output a new directory, or take these settings back"
        )
    claim["identity"] = identity
    claim.setdefault("run_id", uuid.uuid4().hex)
    _note_changes(run, claim, settings, num_steps)
    run.write_json(CLAIM, claim)
    run.write_bytes(SETTINGS, save_settings(settings).encode())
    return claim


def changed_settings(
    old: Mapping[str, Any], new: Mapping[str, Any], adjustable: Iterable[str]
) -> dict[str, list[Any]]:
    """Old and new value of every adjustable setting that changed, by dotted key."""
    before, now = flatten(old), flatten(new)
    return {
        key: [before.get(key), now.get(key)]
        for key in adjustable
        if before.get(key) != now.get(key) and (before.get(key) or now.get(key))
    }


def change_tags(claim: Mapping[str, Any]) -> dict[str, str]:
    """The changes of a claim as tags: every value of a setting, and the step it came with."""
    tags: dict[str, str] = {}
    for change in claim.get("changes", []):
        for key, (old, new) in change["settings"].items():
            before = tags.get(f"changed.{key}", str(old))
            tags[f"changed.{key}"] = f"{before}, {new} from step {change['step']}"
    return tags


def _digest_of(claim: Mapping[str, Any], name: str) -> str:
    return f"{name} {claim[name][:12]}..." if name in claim else f"no {name}"


def _note_changes(
    run: Folder, claim: dict[str, Any], settings: RunSettings, num_steps: int
) -> None:
    """Extend the `changes` of a claim by the settings that changed since the last start."""
    newest = (CheckpointStore(run.child(CHECKPOINTS)).steps() or [0])[-1]
    if newest > num_steps:
        raise SettingsError(
            f"optim.num_steps is {num_steps} and {run.uri} has reached step {newest}; give at "
            f"least {newest}, or --output a new directory"
        )
    old = yaml.safe_load(run.read_bytes(SETTINGS)) if run.exists(SETTINGS) else {}
    now = settings.model_dump(mode="json")
    changes = changed_settings(old, now, settings.adjustable) if old else {}
    for key, (before, after) in changes.items():
        logger.info("%s changes from %s to %s at step %d", key, before, after, newest)
    change = {"step": newest, "settings": changes}
    if changes and claim.get("changes", [])[-1:] != [change]:  # noted by a start that was killed
        claim["changes"] = [*claim.get("changes", []), change]


def _is_same(run: Folder, settings: RunSettings) -> bool:
    """Whether a claim of an earlier version, whose identity held more, is of the same run."""
    try:
        old = yaml.safe_load(run.read_bytes(SETTINGS))
        return type(settings).model_validate(old).identity() == settings.identity()
    except (FileNotFoundError, ValueError):
        return False


def load_run_settings(run: Folder) -> TrainSettings:
    """The settings a run directory was last started with.

    Raises:
        IncompleteError: If it holds none.
    """
    if not run.exists(SETTINGS):
        raise IncompleteError(
            f"{run.uri} is no run directory, it holds no {SETTINGS}; give the --output of "
            "`audiocalm train`"
        )
    return TrainSettings.model_validate(yaml.safe_load(run.read_bytes(SETTINGS)))


def load_voices(run: Folder) -> dict[str, Voice]:
    """Voices by name."""
    return voices_from_bytes(run.read_bytes(VOICES)) if run.exists(VOICES) else {}


def _differences(run: Folder, settings: RunSettings) -> str:
    if not run.exists(SETTINGS):
        return f"its {SETTINGS} is gone"
    old = flatten(yaml.safe_load(run.read_bytes(SETTINGS)))
    new = flatten(settings.model_dump(mode="json"))
    free = (*settings.free, *settings.adjustable)
    changed = [
        f"{key}: {old.get(key)} there, {new.get(key)} now"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not key.startswith(free)
    ]
    return "; ".join(changed[:5]) or "of another version of this program"
