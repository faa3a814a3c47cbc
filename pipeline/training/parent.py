"""The weights that a run started from, as its directory records them.

A run records in `parent.json` of its directory which weights it started from, with their
configuration and latent statistics, so that it can resume without them. It uses their latent
statistics in place of those of its shards: the weights were trained on latents at that scale, and
model and feed must normalise alike.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from model.bundle.voices import Voice
from model.config import ModelConfig, model_config_from_dict
from pipeline.storage import Folder

PARENT = "parent.json"
"""File of a run directory."""


@dataclass(frozen=True)
class Parent:
    """The contents of `parent.json`.

    Attributes:
        init_from: Name in the settings.
        source: Run directory by URI, or bundle by name or absolute path.
        step: Checkpoint of a run; None for a bundle.
        digest: SHA-256 of the checkpoint's marker or of the bundle, over all of its weights.
        model: Configuration of the model.
        codec: Digest of the codec whose latents it was trained on.
        tokenizer: Name of its tokenizer.
        tokenizer_digest: Digest that is equal for tokenizers with the same ids.
        latent_mean: Mean of raw latents it was trained with, by channel.
        latent_std: Divisor of centred latents, by channel.
        run_id: Run that trained the weights, as its `run.json` or the card of the bundle names it;
            the MLflow run of it is tagged with the same id. None where it is not known.
        voices: Voices by name; not in the file.
    """

    init_from: str
    source: str
    step: int | None
    digest: str
    model: dict[str, Any]
    codec: str
    tokenizer: str
    tokenizer_digest: str
    latent_mean: list[float]
    latent_std: list[float]
    run_id: str | None = None
    voices: dict[str, Voice] = field(default_factory=dict, compare=False, repr=False)

    @property
    def config(self) -> ModelConfig:
        """Configuration of the model."""
        return model_config_from_dict(self.model)

    def facts(self) -> dict[str, Any]:
        """The parent as a model card and an experiment tracker show it."""
        known = {
            "source": self.source,
            "run": self.run_id,
            "step": self.step,
            "digest": self.digest,
        }
        return {name: value for name, value in known.items() if value is not None}


def noted_parent(run: Folder) -> Parent | None:
    """The parent recorded in a run directory; None if the run was initialised at random."""
    return Parent(**run.read_json(PARENT)) if run.exists(PARENT) else None


def note_parent(run: Folder, parent: Parent) -> None:
    """Write `parent.json`."""
    values = {item.name: getattr(parent, item.name) for item in dataclasses.fields(parent)}
    del values["voices"]
    run.write_json(PARENT, values)
