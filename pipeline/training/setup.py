"""The model of a run, from preset, shards and tokenizer."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from model.audiocalm import AudioCALM
from model.batch import TrainingBatch
from model.bundle.weights import Qwen3Checkpoint
from model.config import ModelConfig, model_config_from_dict, preset, to_dict
from model.distillation import with_teacher_targets
from model.layers import materialise, shapes_only
from model.text import Tokenizer, load_tokenizer
from pipeline.errors import SettingsError
from pipeline.settings import flatten
from pipeline.storage import Folder
from pipeline.training.checkpoint_store import CheckpointStore
from pipeline.training.init_from import check_parent, opened_parent
from pipeline.training.lora import adapter_start, add_adapters, filled_from_base
from pipeline.training.parent import Parent
from pipeline.training.rundir import DERIVED
from pipeline.training.settings import DistillSettings, ModelSettings, TrainSettings
from pipeline.training.shards import TrainShards

logger = logging.getLogger(__name__)

_WASTEFUL_VOCABULARY = 8


def open_tokenizer(settings: ModelSettings) -> Tokenizer:
    """The tokenizer of the prompts.

    Raises:
        ValueError: If the folder holds none.
    """
    return load_tokenizer(settings.tokenizer)


def model_config(
    settings: ModelSettings,
    shards: TrainShards,
    tokenizer: Tokenizer,
    parent: Parent | None = None,
) -> ModelConfig:
    """The preset with its overrides, fitted to latents, voices and tokenizer.

    Args:
        settings: The model's settings.
        shards: Training clips.
        tokenizer: Encodes the prompts.
        parent: Weights that the model starts from, which then fix the architecture.

    Raises:
        SettingsError: If an override is derived, unknown or out of range, the tokenizer needs more
            rows than the embedding has, or the parent is of another architecture, codec or
            tokenizer.
    """
    if parent is None:
        return _own_config(settings, shards, tokenizer)
    check_parent(parent, shards, tokenizer)
    wanted = flatten(to_dict(_own_config(settings, shards, tokenizer)))
    theirs = flatten(to_dict(parent.config))
    changed = [
        f"{name}: {wanted[name]} in the settings, {theirs[name]} in the weights"
        for name in sorted(wanted)
        if name not in DERIVED and wanted[name] != theirs[name]
    ]
    if changed:
        raise SettingsError(
            f"model.init_from {parent.source} has another architecture ({'; '.join(changed[:5])})"
            "; leave out model.preset and model.overrides to use that of the weights"
        )
    return parent.config


def _own_config(settings: ModelSettings, shards: TrainShards, tokenizer: Tokenizer) -> ModelConfig:
    config = preset_config(settings, {"latent_dim": shards.latent_dim, "speaker_id": None})
    speaker_dim = shards.speaker_dim
    try:
        _check_vocabulary(settings, config.backbone.vocab_size, tokenizer)
        if speaker_dim is None:
            return config
        return replace(config, speaker_dim=speaker_dim, speaker_id=tokenizer.speaker_id)
    except ValueError as error:
        raise SettingsError(f"model settings: {error}") from error


def preset_config(settings: ModelSettings, derived: Mapping[str, Any]) -> ModelConfig:
    """The preset with its overrides.

    Args:
        settings: The model's settings.
        derived: Fields of `ModelConfig` that replace those of the preset and that no override may
            set, such as the latent width.

    Raises:
        SettingsError: If an override is derived, unknown or out of range.
    """
    for name in DERIVED:
        if name in settings.overrides:
            raise SettingsError(
                f"model.overrides.{name} cannot be set: it is derived from shards and tokenizer"
            )
    try:
        values = _merged(to_dict(preset(settings.preset)), settings.overrides)
        return model_config_from_dict(values | dict(derived))
    except ValueError as error:
        raise SettingsError(f"model settings: {error}") from error


def shards_for(folder: Folder, parent: Parent | None, split: str = "train") -> TrainShards:
    """Clips of a split, with the latent statistics of the parent if there is one.

    Raises:
        IncompleteError: If the directory is not complete.
        SettingsError: If the latents are of another width.
    """
    shards = TrainShards(folder, split)
    if parent is None:
        return shards
    return shards.with_latent_stats(parent.latent_mean, parent.latent_std)


def build_model(
    settings: TrainSettings,
    config: ModelConfig,
    shards: TrainShards,
    new_token_ids: Sequence[int] = (),
    device: torch.device | str = "cpu",
    shard: Callable[[nn.Module], None] | None = None,
    parent: Parent | None = None,
    base: CheckpointStore | None = None,
) -> AudioCALM:
    """The model before its first step: seeded, with latent statistics and given weights.

    It is initialised module by module on its device, so that with `shard` no worker ever holds more
    of the others' share than one module, and without it host memory holds no second copy.

    Args:
        settings: The run's settings.
        config: The model's configuration.
        shards: Training clips.
        new_token_ids: The tokenizer's special tokens, which pretrained weights do not know.
        device: This worker's device.
        shard: Removes the other workers' share of a module's own parameters.
        parent: Fills all weights.
        base: Keeps the weights that adapters are added to (`model.lora`), and fills them.

    Raises:
        ValueError: If pretrained weights do not fit, or the parent is no longer what it was.
    """
    with shapes_only():
        model = AudioCALM(config)

    def finish(module: nn.Module) -> None:
        """Fill, freeze and shard the own parameters of a module that has just got memory."""
        for fill in given:
            fill(module)
        if module is model.backbone.embed_tokens and settings.optim.embedding_multiplier == 0:
            module.requires_grad_(False)
        if shard is not None:
            shard(module)

    torch.manual_seed(settings.seed)
    with contextlib.ExitStack() as stack:
        given: list[Callable[[nn.Module], None]] = []
        if settings.model.pretrained is not None:
            published = Path(settings.model.pretrained)
            given.append(Qwen3Checkpoint(model, published, new_token_ids).fill)
        if parent is not None:
            given.append(stack.enter_context(opened_parent(parent, model)))
        if base is not None and settings.model.lora is not None:
            given.append(stack.enter_context(filled_from_base(base, model)))
            add_adapters(model, settings.model.lora)
            given.append(adapter_start(model))
        materialise(model, device, finish)
    model.set_latent_stats(
        torch.from_numpy(shards.latent_mean),
        torch.from_numpy(shards.latent_scale(settings.feed.importance_power)),
    )
    return model


class Teacher:
    """The frozen weights of `model.init_from`, which give a student its targets.

    Every worker holds all of it, in the type of the run's forward pass.

    Args:
        model: Model with those weights.
        settings: Settings of the distillation.
        dtype: Type of the teacher's forward pass.
    """

    def __init__(self, model: AudioCALM, settings: DistillSettings, dtype: torch.dtype) -> None:
        self._model = model.to(dtype).eval().requires_grad_(False)
        self._settings = settings

    def retarget(self, batch: TrainingBatch, null_batch: TrainingBatch) -> TrainingBatch:
        """The batch with the teacher's velocities as targets."""
        settings = self._settings
        return with_teacher_targets(
            batch,
            null_batch,
            self._model,
            num_flow_steps=settings.num_flow_steps,
            num_teacher_steps=settings.num_teacher_steps,
            guidance_scale=settings.guidance_scale,
        )


def _check_vocabulary(settings: ModelSettings, rows: int, tokenizer: Tokenizer) -> None:
    if tokenizer.vocab_size > rows:
        raise ValueError(
            f"the tokenizer {tokenizer.name} has {tokenizer.vocab_size} ids and the preset "
            f"{settings.preset} {rows} rows; set model.overrides.backbone.vocab_size to "
            f"{tokenizer.vocab_size} or choose the preset of that tokenizer"
        )
    if rows > _WASTEFUL_VOCABULARY * tokenizer.vocab_size and settings.pretrained is None:
        logger.warning(
            "the embedding has %d rows and the tokenizer %s uses %d; "
            "set model.tokenizer, or model.overrides.backbone.vocab_size",
            rows,
            tokenizer.name,
            tokenizer.vocab_size,
        )


def special_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids that a tokenizer adds to its text vocabulary."""
    return tokenizer.audio_id, tokenizer.speaker_id, tokenizer.null_id, tokenizer.pad_id


def _merged(values: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for name, value in overrides.items():
        inner = merged.get(name)
        is_nested = isinstance(inner, dict) and isinstance(value, dict)
        merged[name] = _merged(inner, value) if is_nested else value  # type: ignore[arg-type]
    return merged
