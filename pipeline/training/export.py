"""A checkpoint as a bundle: the weight average, the codec and the tokenizer in one directory."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.audiocalm import AudioCALM
from model.bundle.bundle import save_bundle
from model.bundle.weights import StoredPrecision
from model.codec.registry import codec_digest
from model.config import model_config_from_dict
from pipeline.errors import SettingsError
from pipeline.storage import Folder
from pipeline.training.checkpoint import AVERAGE, opened
from pipeline.training.checkpoint_store import CheckpointStore
from pipeline.training.metrics import METRICS
from pipeline.training.parent import noted_parent
from pipeline.training.rundir import CHECKPOINTS, CLAIM, load_run_settings, load_voices
from pipeline.training.setup import open_tokenizer

logger = logging.getLogger(__name__)


def averaged_model(store: CheckpointStore, step: int) -> AudioCALM:
    """The model with the weight average of a checkpoint, float32, in eval mode.

    Raises:
        IncompleteError: If there is no such checkpoint, or it was altered.
    """
    config = model_config_from_dict(store.state(step)["model"])
    model = AudioCALM(config)
    with opened(store, step) as reader:
        weights = reader.whole(set(model.state_dict()))
        for name, parameter in model.named_parameters():
            if name not in weights:  # those are frozen
                weights[name] = reader.parameter(AVERAGE, name, parameter.shape)
    model.load_state_dict(weights)
    return model.eval()


def export_run(
    run: Folder,
    codec: Path,
    output: Path,
    step: int | None = None,
    num_flow_steps: int | None = None,
    weights: StoredPrecision = "fp32",
    about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the bundle of a run; returns its card.

    Args:
        run: Run directory.
        codec: The codec whose latents the model was trained on: a folder, or the name of a shipped
            one.
        output: Bundle to write; one that is there is replaced.
        step: Checkpoint; None takes the newest complete one.
        num_flow_steps: Solver steps where a request does not say; None takes the run's own.
        weights: Type that the weights are stored as.
        about: More fields of the card, such as licence and limits; may replace its name.

    Raises:
        IncompleteError: If there is no such run or checkpoint.
        SettingsError: If the codec is another one, or `about` has fields that the run gives.
        ValueError: If the codec folder cannot be read, or a weight is too large for its type.
    """
    settings = load_run_settings(run)
    store = CheckpointStore(run.child(CHECKPOINTS))
    chosen = store.find(step)
    state = store.state(chosen)
    check_codec(codec, state["codec"])
    claim = run.read_json(CLAIM)
    card = {
        "name": f"AudioCALM {settings.model.preset}, step {chosen}",
        "step": chosen,
        "num_steps": settings.optim.num_steps,
        "weights": f"average of decay {settings.optim.ema_decay}",
        "run": claim["run_id"],
        "shards": {"digest": state["shards"], **state.get("data", {})},
        "codec": state["codec"]["digest"],
        "losses": _losses(run, chosen),
        "seed": settings.seed,
    }
    if (parent := noted_parent(run)) is not None:
        card["parent"] = parent.facts()
    if changes := [change for change in claim.get("changes", []) if change["step"] < chosen]:
        card["changes"] = changes
    card = _with_fields(card, about or {})
    model = averaged_model(store, chosen)
    voices = load_voices(run) if model.config.speaker_id is not None else {}
    sample = settings.sample
    if num_flow_steps is not None:
        sample = sample.model_copy(update={"num_flow_steps": num_flow_steps})
    tokenizer = open_tokenizer(settings.model)
    save_bundle(output, model, codec, tokenizer, card, voices, sample.sampling(), weights)
    logger.info("exported step %d of %s to %s", chosen, run.uri, output)
    return card


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


def _losses(run: Folder, step: int) -> dict[str, float]:
    """The last logged losses up to a step."""
    if not run.exists(METRICS):
        return {}
    entries = [json.loads(line) for line in run.read_bytes(METRICS).decode().splitlines()]
    logged = [entry for entry in entries if entry["step"] <= step]
    last = logged[-1] if logged else {}
    return {name: value for name, value in last.items() if name.startswith("loss/")}
