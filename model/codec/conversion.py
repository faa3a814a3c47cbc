"""A published codec in the folder its library saved, read without network and without pickles."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from model.codec.protocol import AudioCodec
from model.codec.published.oobleck import OobleckCodec
from model.codec.published.same import SameCodec
from model.codec.published.vibevoice import VibeVoiceCodec
from model.codec.registry import build_codec

logger = logging.getLogger(__name__)

CONFIG_FILE = "config.json"
WEIGHTS_FILES = ("diffusion_pytorch_model.safetensors", "model.safetensors")
_FEATURES_FILE = "preprocessor_config.json"
_VIBEVOICE_RATE = 24_000
_KINDS = {
    "AutoencoderOobleck": OobleckCodec.name,
    "AutoencoderSAME": SameCodec.name,
    "vibevoice_acoustic_tokenizer": VibeVoiceCodec.name,
}
"""What a library writes of its model, to the codec of ours that adapts it."""


def read_published(
    folder: str | Path, *, frames_stacked: int | None = None, sample_rate: int | None = None
) -> AudioCodec:
    """A published codec behind the protocol, float32, in eval mode.

    Args:
        folder: As `save_pretrained` of the library writes it: `config.json` and one safetensors
            file.
        frames_stacked: Frames of the network in a latent frame; Oobleck only, 2 by default.
        sample_rate: The rate that is expected, Hz; needed only where the folder does not tell it.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If the architecture is not known, an extra is missing, weights do not fit, or
            the rate is another one.
    """
    place = Path(folder)
    config = _read_json(place / CONFIG_FILE)
    kind = str(config.get("_class_name") or config.get("model_type"))
    if kind not in _KINDS:
        raise ValueError(f"{place} holds a {kind}; codecs are read of {', '.join(_KINDS)}")
    name = _KINDS[kind]
    if frames_stacked is not None and name != OobleckCodec.name:
        raise ValueError(f"frames_stacked is {frames_stacked}, but a {kind} cannot be stacked")
    values: dict[str, Any] = {"name": name}
    if name == VibeVoiceCodec.name:
        values["network"] = VibeVoiceCodec.network_config(config)
        values["sample_rate"] = _feature_rate(place) or sample_rate or _VIBEVOICE_RATE
    else:
        values["network"] = {k: v for k, v in config.items() if not k.startswith("_")}
    if name == OobleckCodec.name:
        values["frames_stacked"] = 2 if frames_stacked is None else frames_stacked
    codec = build_codec(values)
    rate = codec.timebase.sample_rate
    if sample_rate not in (None, rate):
        raise ValueError(f"{place} has {rate} Hz and {sample_rate} Hz was expected")
    network = cast("nn.Module", cast("Any", codec).network)
    try:
        network.load_state_dict({k: v.float() for k, v in _read_weights(place).items()})
    except RuntimeError as error:
        raise ValueError(f"weights in {place} do not fit its {CONFIG_FILE}: {error}") from error
    logger.info(
        "%s from %s: %d Hz, %d samples a frame, %d wide, stream delay %d samples",
        name,
        place,
        rate,
        codec.timebase.hop_length,
        codec.latent_dim,
        codec.delay_samples,
    )
    return codec


def _feature_rate(folder: Path) -> int | None:
    if not (folder / _FEATURES_FILE).is_file():
        return None
    rate = _read_json(folder / _FEATURES_FILE).get("sampling_rate")
    return None if rate is None else int(rate)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path} is missing; give the folder of a codec that its library saved"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}; copy the codec again") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no JSON object; copy the codec again")
    return values


def _read_weights(folder: Path) -> dict[str, Tensor]:
    for name in WEIGHTS_FILES:
        if (folder / name).is_file():
            try:
                return load_file(folder / name)
            except SafetensorError as error:
                raise ValueError(
                    f"{folder / name} is not a complete file: {error}; copy it again"
                ) from error
    raise FileNotFoundError(
        f"{folder} holds none of {', '.join(WEIGHTS_FILES)}; pickled weights are not read, save "
        "them as one safetensors file"
    )
