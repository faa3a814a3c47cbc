"""The weights that a run starts from: the average of another run, or a bundle."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.audiocalm import AudioCALM
from model.bundle.bundle import (
    CODEC_FOLDER,
    MODEL_WEIGHTS,
    TOKENIZER_FOLDER,
    bundle_voices,
    read_manifest,
)
from model.bundle.shipped import MANIFEST, SHIPPED, BundleError, bundle_folder
from model.bundle.weights import opened_weights
from model.codec.registry import codec_digest
from model.config import PRESETS, model_config_from_dict, preset, to_dict
from model.layers import shapes_only
from model.text import ByteTokenizer, PhonemeTokenizer, Tokenizer, load_tokenizer
from pipeline.errors import IncompleteError, SettingsError
from pipeline.settings import digest_of, flatten
from pipeline.storage import COMPLETE, Folder, sha256
from pipeline.training.average import averaged_model
from pipeline.training.checkpoint import AVERAGE, filling, has_base, opened, save_base
from pipeline.training.checkpoint_store import CheckpointStore
from pipeline.training.parent import Parent, noted_parent
from pipeline.training.rundir import (
    CHECKPOINTS,
    CLAIM,
    DERIVED,
    SETTINGS,
    load_run_settings,
    load_voices,
)
from pipeline.training.settings import ModelSettings, TrainSettings
from pipeline.training.shards import TrainShards

_PROBE = "Says: Grüße, 12 o'clock!\n(language en)"
"""Text whose token ids distinguish tokenizers."""
_PROBE_WORDS = "seven"

_ReadWeight = Callable[[str, torch.Size], Tensor]
"""Function that returns a weight by name and shape."""


def find_parent(run: Folder, init_from: str | None) -> Parent | None:
    """The parent of a run: the one noted in its directory, or else the one that is named.

    A run keeps the step that it started from, though its parent may have trained on since.

    Raises:
        SettingsError: If the name is neither a bundle nor a run with a checkpoint.
        BundleError: If the bundle is incomplete or altered.
        IncompleteError: If the checkpoint is.
    """
    noted = noted_parent(run)
    if init_from is None or (noted is not None and noted.init_from == init_from):
        return None if init_from is None else noted
    return open_parent(init_from)


def open_parent(init_from: str) -> Parent:
    """Describe the weights of a bundle (folder or shipped name) or of a run (`RUN`, `RUN@STEP`).

    Raises:
        SettingsError: If it is neither.
        BundleError: If the bundle is incomplete or altered.
        IncompleteError: If the run has no such checkpoint.
    """
    if init_from in SHIPPED or (Path(init_from) / MANIFEST).is_file():
        return _of_bundle(init_from)
    run, step = Folder.at(init_from), None
    match = re.fullmatch(r"(.+)@(\d+)", init_from)
    if match and not run.exists(SETTINGS):
        run, step = Folder.at(match[1]), int(match[2])
    if not run.exists(SETTINGS):
        raise SettingsError(
            f"model.init_from {init_from!r} is neither a bundle (it has no {MANIFEST}) nor a run "
            f"(it has no {SETTINGS}); give a bundle, one of {', '.join(SHIPPED)}, or the --output "
            "of a training as RUN or RUN@STEP"
        )
    return _of_run(run, step, init_from)


@contextlib.contextmanager
def opened_parent(parent: Parent, model: nn.Module) -> Iterator[Callable[[nn.Module], None]]:
    """A function that gives a module of the model its own weights.

    Args:
        parent: Weights to read.
        model: A model of the parent's configuration; may be on the meta device.

    Raises:
        SettingsError: If the parent is no longer what the run was started from.
    """
    with _opened_weights(parent, model) as read:
        yield filling(model, read)


def keep_base(store: CheckpointStore, parent: Parent) -> None:
    """Copy the weights of the parent into a run that trains adapters on them, once.

    The run goes on and is exported without its parent, and the weights keep every bit.

    Raises:
        SettingsError: If the parent is no longer what the run was started from.
    """
    if has_base(store):
        return
    with shapes_only():
        model = AudioCALM(parent.config)
    with _opened_weights(parent, model) as read:
        save_base(store, {name: read(name, p.shape) for name, p in model.named_parameters()})


@contextlib.contextmanager
def _opened_weights(parent: Parent, model: nn.Module) -> Iterator[_ReadWeight]:
    if parent.step is None:
        _check_unchanged(parent, read_manifest(parent.source)[1])
        with opened_weights(bundle_folder(parent.source) / MODEL_WEIGHTS) as file:
            yield lambda name, shape: file.get_tensor(name)
        return
    store = CheckpointStore(Folder.at(parent.source).child(CHECKPOINTS))
    _check_unchanged(parent, _marker_digest(store, parent.step))
    if "lora" in store.state(parent.step):
        merged = dict(averaged_model(store, parent.step).named_parameters())
        yield lambda name, shape: merged[name]
        return
    with opened(store, parent.step) as reader:
        frozen = reader.whole({name for name, _ in model.named_parameters()})
        yield (
            lambda name, shape: (
                frozen[name] if name in frozen else reader.parameter(AVERAGE, name, shape)
            )
        )


def with_architecture(settings: TrainSettings, parent: Parent) -> TrainSettings:
    """Settings that build the parent's model, where they leave preset and overrides as they are,
    and spell words as it does."""
    if settings.model.tokenizer is None and parent.tokenizer == PhonemeTokenizer.name:
        model = settings.model.model_copy(update={"tokenizer": parent.tokenizer})
        settings = settings.model_copy(update={"model": model})
    default = ModelSettings()
    if settings.model.preset != default.preset or settings.model.overrides:
        return settings
    changes = {name: _changes(to_dict(preset(name)), to_dict(parent.config)) for name in PRESETS}
    nearest = min(changes, key=lambda name: len(flatten(changes[name])))
    overrides = {name: value for name, value in changes[nearest].items() if name not in DERIVED}
    model = settings.model.model_copy(update={"preset": nearest, "overrides": overrides})
    return settings.model_copy(update={"model": model})


def check_parent(parent: Parent, shards: TrainShards, tokenizer: Tokenizer) -> None:
    """Refuse shards and a tokenizer that the weights do not know.

    Raises:
        SettingsError: With both values and the remedy.
    """
    found = shards.codec["digest"]
    if found != parent.codec:
        raise SettingsError(
            f"{shards.folder.uri} was encoded with the codec {found[:12]}... and the weights of "
            f"{parent.source} know the latents of {parent.codec[:12]}...; encode the clips with "
            "that codec, or start from other weights"
        )
    if shards.latent_dim != parent.config.latent_dim:
        raise SettingsError(
            f"{shards.folder.uri} has latents of width {shards.latent_dim} and the model of "
            f"{parent.source} takes {parent.config.latent_dim}; start from other weights"
        )
    widths = shards.speaker_dim, parent.config.speaker_dim
    if parent.config.speaker_id is not None and widths[0] not in (None, widths[1]):
        raise SettingsError(
            f"{shards.folder.uri} has speaker embeddings of width {widths[0]} and the model of "
            f"{parent.source} takes {widths[1]}; encode the clips with its speaker encoder"
        )
    # The words of a model of bytes may be taught as sounds: all its ids keep their meaning.
    extends = parent.tokenizer == ByteTokenizer.name and isinstance(tokenizer, PhonemeTokenizer)
    if tokenizer_digest(tokenizer) != parent.tokenizer_digest and not extends:
        raise SettingsError(
            f"model.tokenizer is {tokenizer.name!r} and the weights of {parent.source} were "
            f"trained with {parent.tokenizer!r}, whose ids differ; set model.tokenizer to the "
            "folder of that one (null for bytes, or phonemes)"
        )


def tokenizer_digest(tokenizer: Tokenizer) -> str:
    """Digest of a tokenizer's ids, whatever folder it is in."""
    special = tokenizer.audio_id, tokenizer.speaker_id, tokenizer.null_id, tokenizer.pad_id
    facts: list[Any] = [tokenizer.vocab_size, special, tokenizer.encode(_PROBE)]
    words = tokenizer.encode_words(_PROBE_WORDS, "en")
    if words != tokenizer.encode(_PROBE_WORDS):
        facts.append(words)
    return digest_of(facts)


def _of_bundle(name: str) -> Parent:
    manifest, found = read_manifest(name)
    folder = bundle_folder(name)
    try:
        model_config_from_dict(manifest["model"])
    except ValueError as error:
        raise BundleError(f"{folder / MANIFEST}: {error}; export the bundle again") from error
    tokenizer = load_tokenizer(folder / TOKENIZER_FOLDER)
    with opened_weights(folder / MODEL_WEIGHTS) as file:
        stats = {key: file.get_tensor(key) for key in ("latent_mean", "latent_std")}
    return Parent(
        init_from=name,
        source=name if name in SHIPPED else str(folder.resolve()),
        step=None,
        digest=found,
        model=manifest["model"],
        codec=manifest.get("codec") or codec_digest(folder / CODEC_FOLDER),
        tokenizer=manifest.get("tokenizer", tokenizer.name),
        tokenizer_digest=tokenizer_digest(tokenizer),
        latent_mean=stats["latent_mean"].tolist(),
        latent_std=stats["latent_std"].tolist(),
        run_id=manifest.get("card", {}).get("run"),
        voices=bundle_voices(folder, manifest),
    )


def _of_run(run: Folder, step: int | None, init_from: str) -> Parent:
    store = CheckpointStore(run.child(CHECKPOINTS))
    step = store.find(step)
    state = store.state(step)
    config = model_config_from_dict(state["model"])
    folder = load_run_settings(run).model.tokenizer
    tokenizer = load_tokenizer(folder)
    with shapes_only():
        model = AudioCALM(config)
    with opened(store, step) as reader:
        stats = reader.whole({name for name, _ in model.named_buffers()})
    return Parent(
        init_from=init_from,
        source=run.uri,
        step=step,
        digest=_marker_digest(store, step),
        model=state["model"],
        codec=state["codec"]["digest"],
        tokenizer=tokenizer.name,
        tokenizer_digest=tokenizer_digest(tokenizer),
        latent_mean=stats["latent_mean"].tolist(),
        latent_std=stats["latent_std"].tolist(),
        run_id=run.read_json(CLAIM)["run_id"] if run.exists(CLAIM) else None,
        voices=load_voices(run),
    )


def _marker_digest(store: CheckpointStore, step: int) -> str:
    """Digest of a checkpoint's marker, which holds the digest of every file of it."""
    try:
        return sha256(store.at(step).read_bytes(COMPLETE))
    except (FileNotFoundError, IncompleteError) as error:
        raise SettingsError(
            f"the checkpoint of step {step} in {store.folder.uri}, which this run starts from, is "
            "gone; give --output a new directory and start from a newer one"
        ) from error


def _check_unchanged(parent: Parent, found: str) -> None:
    if found != parent.digest:
        raise SettingsError(
            f"{parent.source} has digest {found[:12]}... and this run was started from "
            f"{parent.digest[:12]}...; put that one back, or give --output a new directory"
        )


def _changes(base: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a nested mapping that differ from those of another one."""
    found: dict[str, Any] = {}
    for name, value in wanted.items():
        inner = base.get(name)
        if isinstance(value, Mapping) and isinstance(inner, Mapping):
            if changed := _changes(inner, value):
                found[name] = changed
        elif _plain(value) != _plain(inner):
            found[name] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
