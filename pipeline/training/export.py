"""Export of a checkpoint as a bundle: weight average, codec and tokenizer in one directory."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model.bundle.bundle import save_bundle
from model.bundle.voices import Voice
from model.bundle.weights import StoredPrecision
from model.codec.registry import codec_digest
from pipeline.errors import SettingsError
from pipeline.storage import Folder
from pipeline.training.average import averaged_model
from pipeline.training.checkpoint_store import CheckpointStore
from pipeline.training.metrics import METRICS, TOTAL_LOSS, VALIDATION, training_seconds
from pipeline.training.parent import noted_parent
from pipeline.training.rundir import CHECKPOINTS, CLAIM, load_run_settings, load_voices
from pipeline.training.settings import TrainSettings
from pipeline.training.setup import open_tokenizer
from pipeline.training.shards import TrainShards
from pipeline.training.voices import chosen_voices

logger = logging.getLogger(__name__)


def export_run(
    run: Folder,
    codec: Path,
    output: Path,
    step: int | None = None,
    sampling: Mapping[str, Mapping[str, Any]] | None = None,
    weights: StoredPrecision = "fp32",
    about: Mapping[str, Any] | None = None,
    voices: Mapping[str, Voice] | None = None,
) -> dict[str, Any]:
    """Write the bundle of a run; returns its card.

    Args:
        run: Run directory.
        codec: The codec whose latents the model was trained on: a folder, or the name of a shipped
            one.
        output: Bundle to write; an existing one is replaced.
        step: Checkpoint; None takes the newest complete one.
        sampling: Fields of `SamplingOptions` by modality, where a request does not say; None takes
            what the run samples with.
        weights: Type in which the weights are stored.
        about: Further fields of the card, such as licence and limits; may replace its name.
        voices: Voices by name; None takes those of the run.

    Raises:
        IncompleteError: If there is no such run or checkpoint.
        SettingsError: If the codec is another one, or `about` has fields that the run gives.
        ValueError: If the codec folder cannot be read, a weight is too large for its type, or
            `sampling` names what there is not.
    """
    settings = load_run_settings(run)
    store = CheckpointStore(run.child(CHECKPOINTS))
    chosen = store.find(step)
    state = store.state(chosen)
    check_codec(codec, state["codec"])
    card = _with_fields(_card(run, settings, chosen, state), about or {})
    model = averaged_model(store, chosen)
    if model.config.speaker_id is None:
        voices = {}
    elif voices is None:
        voices = load_voices(run)
    sampled = settings.sample.sampling() if sampling is None else sampling
    tokenizer = open_tokenizer(settings.model)
    save_bundle(output, model, codec, tokenizer, card, voices, sampled, weights)
    logger.info("exported step %d of %s to %s", chosen, run.uri, output)
    return card


def _card(
    run: Folder, settings: TrainSettings, step: int, state: Mapping[str, Any]
) -> dict[str, Any]:
    """Facts about a checkpoint that the run itself knows."""
    claim, entries = run.read_json(CLAIM), _logged(run, step)
    card = {
        "name": f"AudioCALM {settings.model.preset}, step {step}",
        "step": step,
        "num_steps": settings.optim.num_steps,
        "hours_of_training": round(training_seconds(entries) / 3600, 2),
        "weights": f"average of decay {settings.optim.ema_decay}",
        "run": claim["run_id"],
        "shards": {"digest": state["shards"], **state.get("data", {})},
        "codec": state["codec"]["digest"],
        "losses": _losses(entries),
        **_validation(entries, step),
        "seed": settings.seed,
    }
    if (parent := noted_parent(run)) is not None:
        card["parent"] = parent.facts()
    if settings.model.lora is not None:
        card["lora"] = settings.model.lora.model_dump(mode="json")
    if changes := [change for change in claim.get("changes", []) if change["step"] < step]:
        card["changes"] = changes
    return card


def run_voices(run: Folder, shards: TrainShards, recipe: Mapping[str, Any]) -> dict[str, Voice]:
    """The voices that a recipe chooses among the speakers a run was trained on.

    Args:
        run: Run directory.
        shards: Training split of the shards that it was trained on.
        recipe: Fields of `VoiceChoice` by the name of the voice.

    Raises:
        SettingsError: If the shards are others, or as `chosen_voices`.
    """
    if run.read_json(CLAIM)["shards"] != shards.digest:
        raise SettingsError(
            f"{run.uri} was trained on other shards than {shards.folder.uri} holds; voices are "
            "taken from the shards of the training"
        )
    return chosen_voices(shards, recipe)


def exported_weights(run: Folder, step: int | None = None) -> dict[str, Any]:
    """The `run` and the `step` on the card of a bundle that is exported now.

    Raises:
        IncompleteError: If there is no such checkpoint.
    """
    step = CheckpointStore(run.child(CHECKPOINTS)).find(step)
    return {"run": run.read_json(CLAIM)["run_id"], "step": step}


def check_codec(folder: Path, trained_on: dict[str, Any]) -> None:
    """Refuse a codec whose latents are not those of the shards.

    Raises:
        SettingsError: If its digest differs.
        FileNotFoundError: If the folder holds no codec.
    """
    found, wanted = codec_digest(folder), trained_on["digest"]
    if found != wanted:
        raise SettingsError(
            f"the codec in {folder} has digest {found[:12]}... and the shards were encoded with "
            f"{wanted[:12]}...; give the folder of that codec"
        )


def _with_fields(card: dict[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    if taken := sorted((card.keys() & about.keys()) - {"name"}):
        raise SettingsError(
            f"the card's {', '.join(taken)} come from the run and cannot be set; choose other names"
        )
    return {**card, **about}


def _logged(run: Folder, step: int) -> list[dict[str, Any]]:
    """Metrics that were logged up to a step."""
    if not run.exists(METRICS):
        return []
    entries = [json.loads(line) for line in run.read_bytes(METRICS).decode().splitlines()]
    return [entry for entry in entries if entry["step"] <= step]


def _losses(entries: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The last logged losses."""
    last: Mapping[str, Any] = next(
        (entry for entry in reversed(entries) if TOTAL_LOSS in entry), {}
    )
    return {name: value for name, value in last.items() if name.startswith("loss/")}


def _validation(entries: Sequence[Mapping[str, Any]], step: int) -> dict[str, dict[str, float]]:
    """The field of the card with the losses on held-out clips at the exported step."""
    found = {
        name.removeprefix(VALIDATION): value
        for entry in entries[-1:]
        for name, value in entry.items()
        if entry["step"] == step and name.startswith(VALIDATION)
    }
    return {"validation": found} if found else {}
