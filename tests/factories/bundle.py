"""A random bundle that makes audio in milliseconds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from model.bundle.bundle import Bundle, load_bundle, save_bundle
from model.bundle.voices import Voice
from model.codec.registry import build_codec, codec_digest, codec_preset, save_codec
from model.config import BackboneConfig, HeadConfig, ModelConfig
from model.text import ByteTokenizer
from tests.factories.model import random_model


def bundle_config() -> ModelConfig:
    """Two narrow layers on bytes, latents of the tiny codec."""
    return ModelConfig(
        backbone=BackboneConfig(
            hidden_dim=32,
            num_layers=2,
            num_heads=4,
            num_kv_heads=2,
            head_dim=8,
            ffn_dim=48,
            vocab_size=ByteTokenizer.vocab_size,
        ),
        head=HeadConfig(hidden_dim=24, num_layers=1, time_embedding_dim=16),
        latent_dim=codec_latent_dim(),
        frames_per_block=4,
        speaker_dim=5,
        speaker_id=ByteTokenizer.speaker_id,
    )


def codec_latent_dim() -> int:
    """Width of the tiny codec's latents."""
    return build_codec(codec_preset("tiny")).latent_dim


def codec_facts(folder: Path) -> dict[str, Any]:
    """What the card of shards says of the tiny codec in a folder."""
    return {
        "digest": codec_digest(folder),
        "config": {},
        "sample_rate": 16_000,
        "hop_length": 640,
        "latent_dim": codec_latent_dim(),
    }


def write_bundle(
    folder: Path,
    *,
    seed: int = 0,
    sampling: Mapping[str, Mapping[str, Any]] | None = None,
    speaker_dim: int = 5,
    codec: str | None = None,
    paces_speech: bool = False,
    default_voice: str | None = None,
) -> Path:
    """A complete bundle below `folder`, with one voice, `ada`; the codec is random if not named."""
    codec_folder: str | Path = codec or folder / "codec-source"
    if codec is None:
        save_codec(build_codec(codec_preset("tiny")), codec_folder)
    target = folder / "bundle"
    voices = {"ada": Voice(torch.linspace(-1, 1, speaker_dim), "A woman speaks.")}
    card = {"name": "random", "licence": "CC0-1.0"}
    if default_voice is not None:
        card["default_voice"] = default_voice
    config = dataclasses.replace(
        bundle_config(), speaker_dim=speaker_dim, paces_speech=paces_speech
    )
    model = random_model(config, seed)
    save_bundle(target, model, codec_folder, ByteTokenizer(), card, voices, sampling)
    return target


def random_bundle(folder: Path, **options: Any) -> Bundle:
    """The same, loaded."""
    return load_bundle(write_bundle(folder, **options))
