"""Codecs by name: build, save and load any of them.

A codec folder holds `model.safetensors` and, written last, `codec.json` with the configuration, the
digest of the weights, and what the codec gave for fixed input when it was saved. Loading computes
that again: weights that another version of the code would read differently are refused.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from model.codec.protocol import AudioCodec
from model.codec.published.oobleck import OobleckCodec
from model.codec.published.same import SameCodec
from model.codec.published.vibevoice import VibeVoiceCodec
from model.codec.self_check import self_check, verify_self_check
from model.codec.vae.codec_config import CODEC_PRESETS
from model.codec.vae.vae import VAECodec
from model.timebase import Timebase

logger = logging.getLogger(__name__)

CODEC_FILE = "codec.json"
WEIGHTS_FILE = "model.safetensors"
SELF_CHECK = "self_check"
"""Key of the self-check in `codec.json`."""
IMPORTANCE = "channel_importance"
"""Key of the measured importance of the latent channels in `codec.json`."""
_NOT_IN_DIGEST = (SELF_CHECK, IMPORTANCE)
"""Measured from the weights; their last digits are the machine's."""
SCHEMA_VERSION = 1
"""Raised when the meaning of `codec.json` changes; other versions are refused."""

SHIPPED: dict[str, tuple[Path, str]] = {
    "shipped-tiny": (
        Path(__file__).parent / "pretrained" / "tiny",
        "28aff02f57d8e1b644c355fea1cc8d576a50e5a8af319f8d7343d8b641313616",
    ),
    "shipped-tiny-96": (
        Path(__file__).parent / "pretrained" / "tiny-96",
        "3e92fde7539b74c6ee9f883de6c6e023e4d11d5eeef408568c17e012abbb24fd",
    ),
}
"""Codecs that come with the package, by name: folder, and the digest it must have."""

_ARCHITECTURES: dict[str, Callable[[dict[str, Any], int], AudioCodec]] = {
    VAECodec.name: VAECodec.from_config,
    OobleckCodec.name: OobleckCodec.from_config,
    SameCodec.name: SameCodec.from_config,
    VibeVoiceCodec.name: VibeVoiceCodec.from_config,
}


def codec_preset(name: str) -> dict[str, Any]:
    """Configuration of a named preset: tiny, small or paper.

    Raises:
        ValueError: If there is none of that name.
    """
    if name not in CODEC_PRESETS:
        raise ValueError(f"no codec preset {name!r}; there are {', '.join(CODEC_PRESETS)}")
    return VAECodec.describe(CODEC_PRESETS[name])


def codec_shape(name: str | Path) -> tuple[Timebase, int]:
    """Timebase and latent width of a preset, a shipped codec or a saved one.

    Raises:
        FileNotFoundError: If it is no preset and the folder holds no codec.
        ValueError: As `load_codec`.
    """
    if name in CODEC_PRESETS:
        preset = CODEC_PRESETS[str(name)]
        return preset.timebase, preset.latent_dim
    codec = load_codec(name)
    return codec.timebase, codec.latent_dim


def build_codec(config: dict[str, Any], seed: int = 0) -> AudioCodec:
    """An untrained codec; the same configuration and seed always give the same weights.

    Args:
        config: Values of `config_dict` or `codec_preset`.
        seed: Seed of the initial weights.

    Raises:
        ValueError: On an unknown architecture or a wrong value.
    """
    values = dict(config)
    name = values.pop("name", None)
    if name not in _ARCHITECTURES:
        raise ValueError(f"no codec architecture {name!r}; there are {', '.join(_ARCHITECTURES)}")
    try:
        codec = _ARCHITECTURES[name](values, seed)
    except KeyError as error:
        raise ValueError(f"the configuration of codec {name!r} lacks {error}") from error
    _module(codec).eval()
    return codec


def codec_files(codec: AudioCodec, importance: Sequence[float] | None = None) -> dict[str, bytes]:
    """Files of a codec folder by name, in the order to write them.

    Args:
        codec: The codec.
        importance: Importance of every latent channel (`model.codec.importance`); None leaves it
            unknown. The digest of the codec does not depend on it.

    Raises:
        ValueError: If the codec gives values that are not finite, or there is not one finite
            importance for each channel.
    """
    if importance is not None:
        _check_importance(importance, codec.latent_dim)
    weights = save_tensors(
        {k: v.contiguous().cpu() for k, v in _module(codec).state_dict().items()}
    )
    card: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "config": codec.config_dict(),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        # Of the codec as it will be loaded: a GPU rounds otherwise.
        SELF_CHECK: self_check(_assembled(codec.config_dict(), weights, "the codec")),
    }
    if importance is not None:
        card[IMPORTANCE] = [round(float(value), 6) for value in importance]
    return {WEIGHTS_FILE: weights, CODEC_FILE: _card_bytes(card)}


def save_codec(
    codec: AudioCodec, folder: str | Path, importance: Sequence[float] | None = None
) -> None:
    """Write a codec; each file appears complete or not at all, the card last.

    Arguments and errors are those of `codec_files`.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for name, payload in codec_files(codec, importance).items():
        _replace_file(target / name, payload)


def load_codec(folder: str | Path) -> AudioCodec:
    """A saved codec in eval mode.

    Args:
        folder: Where it lies, or the name of a shipped one.

    Raises:
        FileNotFoundError: If the folder holds no codec.
        ValueError: If the files disagree, are damaged, of another schema version, or mean something
            else to this version of the code.
    """
    card, weights = _read(folder)
    codec = _assembled(card["config"], weights, str(folder))
    if SELF_CHECK in card:
        verify_self_check(codec, card[SELF_CHECK], str(folder))
    else:
        logger.info("%s was saved without a self-check; save it again to have one", folder)
    return codec


def codec_digest(folder: str | Path) -> str:
    """SHA-256 over configuration and weights: equal digests, equal latents.

    What was measured from the weights is left out: it follows from them.

    Raises:
        FileNotFoundError: If the folder holds no codec.
        ValueError: If the files disagree.
    """
    card, _ = _read(folder)
    return _digest(card)


def codec_importance(folder: str | Path) -> list[float] | None:
    """Importance of every latent channel (`model.codec.importance`); None if never measured.

    Raises:
        FileNotFoundError: If the folder holds no codec.
        ValueError: If the files disagree.
    """
    found: list[float] | None = _read(folder)[0].get(IMPORTANCE)
    return found


def _check_importance(importance: Sequence[float], latent_dim: int) -> None:
    is_valid = all(math.isfinite(value) and value >= 0 for value in importance)
    if len(importance) != latent_dim or not is_valid:
        raise ValueError(
            f"{len(importance)} importances for {latent_dim} channels; each needs one finite "
            "number that is not negative"
        )


def codec_folder(name: str | Path) -> Path:
    """Folder of a codec: that of a shipped one, or the path as it is."""
    shipped = SHIPPED.get(str(name))
    return Path(name) if shipped is None else shipped[0]


def _card_bytes(card: dict[str, Any]) -> bytes:
    return (json.dumps(card, indent=1, sort_keys=True) + "\n").encode()


def _replace_file(path: Path, payload: bytes) -> None:
    """Write a file so that it appears complete or not at all."""
    aside = path.with_name(f".aside-{uuid.uuid4().hex}-{path.name}")
    aside.write_bytes(payload)
    os.replace(aside, path)


def _digest(card: dict[str, Any]) -> str:
    named = {name: value for name, value in card.items() if name not in _NOT_IN_DIGEST}
    text = json.dumps(named, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _assembled(config: dict[str, Any], weights: bytes, where: str) -> AudioCodec:
    codec = build_codec(config)
    try:
        _module(codec).load_state_dict(load_tensors(weights))
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f"weights in {where} do not fit their codec.json: {error}") from error
    return codec


def _read(name: str | Path) -> tuple[dict[str, Any], bytes]:
    card, weights = _read_folder(codec_folder(name))
    shipped = SHIPPED.get(str(name))
    if shipped is not None and _digest(card) != shipped[1]:
        raise ValueError(
            f"codec {name} has digest {_digest(card)}, not the {shipped[1]} it was shipped with; "
            "install the package again"
        )
    return card, weights


def _read_folder(folder: Path) -> tuple[dict[str, Any], bytes]:
    for name in (CODEC_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} holds no codec: {name} is missing; train one with train-codec, or use "
                f"a shipped one: {', '.join(SHIPPED)}"
            )
    try:
        card = json.loads((folder / CODEC_FILE).read_bytes())
    except ValueError as error:
        raise ValueError(f"{folder / CODEC_FILE} is not JSON: {error}") from error
    if not isinstance(card, dict) or card.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(
            f"{folder / CODEC_FILE} is not of schema version {SCHEMA_VERSION}; "
            "use the version of the package that saved it"
        )
    weights = (folder / WEIGHTS_FILE).read_bytes()
    found = hashlib.sha256(weights).hexdigest()
    if found != card.get("weights_sha256"):
        raise ValueError(
            f"{folder / WEIGHTS_FILE} has SHA-256 {found}, {CODEC_FILE} names "
            f"{card.get('weights_sha256')}; the two are not of one codec, copy the folder again"
        )
    return card, weights


def _module(codec: AudioCodec) -> nn.Module:
    if not isinstance(codec, nn.Module):
        raise TypeError(f"{type(codec).__name__} is not a torch module")
    return codec
