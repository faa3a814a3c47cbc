"""Start of codec training: the codec of the recipe and the crops of its clips."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from model.codec.protocol import AudioCodec
from model.codec.registry import build_codec, load_codec
from model.codec.vae.vae import VAECodec
from pipeline.storage import Folder
from pipeline.training.codec.crops import CropSource, read_spans
from pipeline.training.codec.settings import TrainCodecSettings

logger = logging.getLogger(__name__)

_FIRST_CROPS = 1024
"""Number of crops that the initial principal components of a codec are computed from."""


def first_codec(settings: TrainCodecSettings) -> VAECodec:
    """The codec at the start of a run: drawn from the seed, or with the weights of `init_from`.

    Raises:
        FileNotFoundError: If `init_from` holds no codec.
        ValueError: If it has another configuration than the recipe, or cannot be trained here.
    """
    config = settings.codec_config()
    if settings.init_from is None:
        return _trainable(build_codec(config, settings.seed))
    codec = _trainable(load_codec(settings.init_from))
    found = codec.config_dict()
    if differing := [name for name in config if config[name] != found.get(name)]:
        raise ValueError(
            f"init_from {settings.init_from} has another "
            + ", ".join(f"{name} ({found.get(name)}, not {config[name]})" for name in differing)
            + "; give its preset and codec fields"
        )
    return codec


def _trainable(codec: Any) -> VAECodec:
    if not isinstance(codec, VAECodec):
        raise ValueError(f"codec {codec.name!r} cannot be trained here; use the vae architecture")
    return codec


def crop_source(
    settings: TrainCodecSettings, clips: Folder, split: str, codec: AudioCodec, num_frames: int
) -> CropSource:
    """Crops of one split for a codec; an empty split falls back to the training clips."""
    spans = read_spans(clips, split)
    if not spans and split != "train":
        logger.warning("no clips of split %s; training clips are used instead", split)
        spans = read_spans(clips, "train")
    return CropSource(
        spans,
        sample_rate=codec.timebase.sample_rate,
        num_channels=codec.num_channels,
        crop_samples=codec.timebase.num_samples(num_frames),
        weights=settings.crops.modality_weights,
        memory_limit_bytes=settings.crops.memory_limit_bytes if split == "train" else 0,
    )


def first_crops(source: CropSource, settings: TrainCodecSettings) -> Iterator[Tensor]:
    """Crops for the initial principal components of a codec; the same on every worker."""
    size = settings.crops.per_step
    for step in range(-(-_FIRST_CROPS // size)):
        yield torch.from_numpy(source.batch(settings.seed, step, range(size)))
