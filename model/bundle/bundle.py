"""A trained model as one directory: weights, codec, tokenizer, voices, digests and card.

`bundle.json` names every file with its SHA-256; loading checks them all before it reads one, and
never unpickles. It also holds the default sampling options. A codec that comes with the package is
stored by name and digest in place of a copy. The digest of a bundle is the digest of `bundle.json`,
so it covers everything but the README, which renders the card for people, and its figures.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, cast

import torch

from model.audiocalm import AudioCALM
from model.bundle.card import SHIPPED_CODEC, default_voice_of, render_card
from model.bundle.request import DEFAULT_SAMPLING, SamplingDefaults, sampling_defaults
from model.bundle.shipped import MANIFEST, SHIPPED, BundleError, bundle_folder
from model.bundle.voices import Voice, voices_from_bytes, voices_to_bytes
from model.bundle.weights import StoredPrecision, digest, fill, save_weights, stored_as
from model.codec.protocol import AudioCodec
from model.codec.registry import SHIPPED as SHIPPED_CODECS
from model.codec.registry import codec_digest, load_codec
from model.config import model_config_from_dict, to_dict
from model.layers import shapes_only
from model.text import Tokenizer, load_tokenizer

SCHEMA_VERSION = 1
"""Raised when the meaning of `bundle.json` changes; other versions are refused."""

MODEL_WEIGHTS = "model.safetensors"
CODEC_FOLDER = "codec"
TOKENIZER_FOLDER = "tokenizer"
VOICES = "voices.safetensors"
README = "README.md"

Precision = Literal["auto", "fp32", "bf16"]
"""Type of a loaded model's weights."""

_FOR_PEOPLE = {".md", ".png"}
"""Files beside a bundle that are never loaded."""
_PICKLES = {".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"}
_ASIDE = ".aside-"


@dataclass(frozen=True)
class Bundle:
    """Everything that turns a description into audio.

    Attributes:
        model: In eval mode, on the requested device.
        codec: In eval mode, on the requested device.
        tokenizer: The one the model was trained with.
        card: Facts about the model from its exporter: data, licence, measures.
        digest: SHA-256 over all parts.
        voices: Voices by name.
        sampling: Default sampling options of each modality.
    """

    model: AudioCALM
    codec: AudioCodec
    tokenizer: Tokenizer
    card: dict[str, Any]
    digest: str
    voices: dict[str, Voice] = field(default_factory=dict)
    sampling: SamplingDefaults = field(default_factory=lambda: DEFAULT_SAMPLING)

    @property
    def default_voice(self) -> str | None:
        """Name of the voice that speaks words without voice and description; None has none."""
        return default_voice_of(self.card, self.voices)


def save_bundle(
    folder: Path,
    model: AudioCALM,
    codec: str | Path,
    tokenizer: Tokenizer,
    card: dict[str, Any],
    voices: Mapping[str, Voice] | None = None,
    sampling: Mapping[str, Mapping[str, Any]] | None = None,
    weights: StoredPrecision = "fp32",
) -> None:
    """Write a bundle so that it appears complete or not at all.

    Args:
        folder: Target. A bundle that is there already is replaced.
        model: Module with the weights to ship, usually the average (EMA).
        codec: Folder that `save_codec` wrote, which is copied, or the name of a shipped codec. The
            bundle then holds only the name, and needs a package with that codec.
        tokenizer: The model's own.
        card: JSON values for the reader of the bundle.
        voices: Voices by name, with embeddings of `speaker_dim` values.
        sampling: Fields of `SamplingOptions` by modality that replace the defaults.
        weights: Type that the weights are stored as; they are loaded as float32 on a CPU.

    Raises:
        BundleError: If the codec does not fit the model, a part could not be loaded again without
            unpickling, or the target holds something else than a bundle.
        ValueError: If `sampling` names an unknown modality or field or holds a value out of range,
            the card a voice that is not there, or a weight is not finite as `weights`.
    """
    folder, loaded = Path(folder), load_codec(codec)
    _check_codec(model, loaded, str(codec))
    _check_tokenizer(model, tokenizer, "the tokenizer")
    check_voices(model, voices or {})
    default_voice_of(card, voices or {})
    sampling_defaults(sampling or {})
    stored = stored_as(model, weights)
    codec_name = str(codec) if str(codec) in SHIPPED_CODECS else None
    with _written_aside(folder) as aside:
        save_weights(aside / MODEL_WEIGHTS, stored, {"format": "audiocalm"})
        if codec_name is None:
            shutil.copytree(codec, aside / CODEC_FOLDER)
        (aside / TOKENIZER_FOLDER).mkdir()
        tokenizer.save(aside / TOKENIZER_FOLDER)
        if voices:
            (aside / VOICES).write_bytes(voices_to_bytes(voices))
        files = {name: digest(aside / name) for name in _part_names(aside)}
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "model": to_dict(model.config),
            "codec": codec_digest(codec),
            "tokenizer": tokenizer.name,
            "sampling": sampling or {},
            "files": files,
            "card": card,
        } | ({} if codec_name is None else {SHIPPED_CODEC: codec_name})
        payload = json.dumps(
            manifest, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False
        )
        (aside / MANIFEST).write_text(payload + "\n", encoding="utf-8")
        readme = render_card(
            manifest,
            loaded,
            voices or {},
            num_parameters=sum(value.numel() for value in model.parameters()),
            precision=weights,
        )
        (aside / README).write_text(readme, encoding="utf-8")


def bundle_codec(name: str | Path) -> str | Path:
    """The codec of a bundle: a folder, or the name of a shipped one; for `load_codec`.

    Raises:
        BundleError: As `load_bundle`.
    """
    codec: str | None = read_manifest(name)[0].get(SHIPPED_CODEC)
    return bundle_folder(name) / CODEC_FOLDER if codec is None else codec


def load_bundle(
    folder: str | Path, device: str | torch.device = "cpu", precision: Precision = "auto"
) -> Bundle:
    """Check every part of a bundle, then load it.

    Args:
        folder: As `save_bundle` wrote it, or the name of a shipped one.
        device: Where model and codec go.
        precision: Dtype of the model's weights; `auto` is bf16 on a GPU and fp32 on a CPU. The
            codec and the solver's state stay float32.

    Raises:
        BundleError: If a part is missing, altered, unlisted or of another schema version, or the
            package was built without the shipped bundle or codec that is named.
    """
    manifest, bundle_digest = read_manifest(folder)
    folder = bundle_folder(folder)
    try:
        config = model_config_from_dict(manifest["model"])
        sampling = sampling_defaults(manifest.get("sampling", {}))
    except ValueError as error:
        raise BundleError(f"{folder / MANIFEST}: {error}; export the bundle again") from error
    place = torch.device(device)
    is_half = precision == "bf16" or (precision == "auto" and place.type == "cuda")
    with shapes_only():
        model = AudioCALM(config).to(torch.bfloat16 if is_half else torch.float32)
    try:
        fill(model, [folder / MODEL_WEIGHTS], str(place))
    except ValueError as error:
        raise BundleError(
            f"{folder / MODEL_WEIGHTS} does not fit the model in {MANIFEST}: {error}; "
            "export the bundle again"
        ) from error
    codec = _codec_of(folder, manifest)
    _check_codec(model, codec, str(folder))
    tokenizer = load_tokenizer(folder / TOKENIZER_FOLDER)
    _check_tokenizer(model, tokenizer, str(folder / TOKENIZER_FOLDER))
    return Bundle(
        model=model.eval(),
        codec=cast(AudioCodec, cast(torch.nn.Module, codec).to(place).eval()),
        tokenizer=tokenizer,
        card=manifest["card"],
        digest=bundle_digest,
        voices=bundle_voices(folder, manifest),
        sampling=sampling,
    )


def bundle_voices(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Voice]:
    """The voices of a bundle whose parts are checked, by name."""
    return voices_from_bytes((folder / VOICES).read_bytes()) if VOICES in manifest["files"] else {}


def _codec_of(folder: Path, manifest: Mapping[str, Any]) -> AudioCodec:
    """The codec in a bundle, or the shipped one that it names."""
    name = manifest.get(SHIPPED_CODEC)
    if name is not None and name not in SHIPPED_CODECS:
        raise BundleError(
            f"{folder} needs the codec {name!r}, which this package does not have (it has "
            f"{', '.join(SHIPPED_CODECS)}); install the version that the bundle was made with"
        )
    source = folder / CODEC_FOLDER if name is None else name
    found = codec_digest(source)
    # Bundles of earlier versions name the files of their codec only.
    if (wanted := manifest.get("codec", found)) != found:
        remedy = "export the bundle again"
        if name is not None:
            remedy += ", or install the version of the package that it was made with"
        raise BundleError(
            f"{source} is codec {found[:12]}..., {folder / MANIFEST} names {wanted[:12]}...; "
            f"{remedy}"
        )
    return load_codec(source)


def read_manifest(name: str | Path) -> tuple[dict[str, Any], str]:
    """Contents of `bundle.json` and the digest of the bundle, after a check of every part.

    Raises:
        BundleError: As `load_bundle`.
    """
    folder = bundle_folder(name)
    manifest, found = _parsed_manifest(folder)
    expected = SHIPPED[str(name)][1] if str(name) in SHIPPED else found
    if found != expected:
        raise BundleError(
            f"the bundle {name} has digest {found[:12]}..., not the {expected[:12]}... it was "
            "shipped with; install the package again"
        )
    _check_parts(folder, manifest["files"])
    return manifest, found


def _parsed_manifest(folder: Path) -> tuple[dict[str, Any], str]:
    """Contents of `bundle.json` and its SHA-256; its parts are not checked."""
    path = folder / MANIFEST
    try:
        payload = path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{folder} is no bundle: cannot read {MANIFEST} ({error.strerror}); "
            "make one with `audiocalm export`"
        ) from error
    try:
        manifest = json.loads(payload)
    except ValueError as error:
        raise BundleError(f"{path} is not valid JSON: {error}; copy the bundle again") from error
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{path} has schema version {version}; this program reads {SCHEMA_VERSION}: "
            "export the bundle again with this program, or install the one that wrote it"
        )
    missing = {"model", "files", "card"} - set(manifest)
    if missing:
        raise BundleError(f"{path} lacks {', '.join(sorted(missing))}; export the bundle again")
    return manifest, hashlib.sha256(payload).hexdigest()


def _check_parts(folder: Path, files: dict[str, str]) -> None:
    """Raise `BundleError` unless the files of a bundle are those of its manifest."""
    if MODEL_WEIGHTS not in files:
        raise BundleError(f"{folder / MANIFEST} lists no {MODEL_WEIGHTS}; export the bundle again")
    for name, expected in sorted(files.items()):
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise BundleError(f"{folder / MANIFEST} names {name!r}, outside the bundle")
        if not (folder / name).is_file():
            raise BundleError(f"{folder / name} is missing; copy or export the bundle again")
        actual = digest(folder / name)
        if actual != expected:
            raise BundleError(
                f"{folder / name} was altered: SHA-256 {actual[:12]}... is not "
                f"{expected[:12]}... of {MANIFEST}; copy or export the bundle again"
            )
    extra = sorted(set(_part_names(folder)) - set(files))
    if extra:
        raise BundleError(f"{folder / extra[0]} is not listed in {MANIFEST}; remove it")


def _part_names(folder: Path) -> Iterator[str]:
    """Files that loading may read, relative, sorted; refuses what could only be unpickled."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or name == MANIFEST or path.suffix.lower() in _FOR_PEOPLE:
            continue
        if path.suffix.lower() in _PICKLES:
            raise BundleError(f"{path} may hold pickled code; convert it to safetensors")
        yield name


def _check_codec(model: AudioCALM, codec: AudioCodec, where: str) -> None:
    """Raise `BundleError` unless the model predicts latents of the codec."""
    if codec.latent_dim != model.config.latent_dim:
        raise BundleError(
            f"the codec in {where} has latent_dim {codec.latent_dim}, the model "
            f"{model.config.latent_dim}; use the codec whose latents the model was trained on"
        )


def _check_tokenizer(model: AudioCALM, tokenizer: Tokenizer, where: str) -> None:
    """Raise `BundleError` unless the model has the ids of the tokenizer."""
    config = model.config
    if tokenizer.vocab_size > config.backbone.vocab_size:
        raise BundleError(
            f"{where} has {tokenizer.vocab_size} ids, the model {config.backbone.vocab_size}; "
            "use the tokenizer the model was trained with"
        )
    if config.speaker_id not in (None, tokenizer.speaker_id):
        raise BundleError(
            f"{where} marks voices by id {tokenizer.speaker_id}, the model by "
            f"{config.speaker_id}; use the tokenizer the model was trained with"
        )


def check_voices(model: AudioCALM, voices: Mapping[str, Voice]) -> None:
    """Refuse speaker embeddings that a model cannot take.

    Raises:
        BundleError: With the voice, its shape and the one expected.
    """
    for name, voice in voices.items():
        if voice.embedding.shape != (model.config.speaker_dim,):
            raise BundleError(
                f"voice {name!r} has shape {tuple(voice.embedding.shape)}; the model takes "
                f"({model.config.speaker_dim},): compute it with the encoder of the training data"
            )


@contextmanager
def _written_aside(folder: Path) -> Iterator[Path]:
    """A directory next to the target that takes its place when the block succeeds."""
    if folder.exists() and not (folder / MANIFEST).is_file() and any(folder.iterdir()):
        raise BundleError(f"{folder} holds something else than a bundle; choose another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = folder.parent / f"{_ASIDE}{uuid.uuid4().hex}"
    replaced = folder.parent / f"{_ASIDE}{uuid.uuid4().hex}"
    aside.mkdir()
    try:
        yield aside
        if folder.exists():
            os.replace(folder, replaced)
        os.replace(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)
