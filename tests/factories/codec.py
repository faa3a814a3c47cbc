"""Small codecs and clips directories for tests."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile
import torch

from model.codec.protocol import AudioCodec
from model.codec.vae.codec_config import CodecConfig, codec_config_from_dict
from model.codec.vae.vae import VAECodec
from pipeline.storage import Folder, table_bytes
from tests.factories.cards import finish

_SHAPE: dict[str, Any] = {
    "sample_rate": 4000,
    "num_channels": 1,
    "stem": "convolution",
    "principal_bands": None,
    "head_phase": "predicted",
    "stem_stride": 4,
    "stem_kernel": 12,
    "strides": [5],
    "channels": [8, 12],
    "dilations": [1, 3],
    "hidden_dim": 16,
    "num_heads": 2,
    "ffn_dim": 24,
    "encoder_layers": 2,
    "aggregator_layers": 1,
    "decoder_layers": 2,
    "window": 6,
    "patch_frames": 4,
    "latent_dim": 4,
    "decoder_units": 2,
    "head_channels": 12,
    "head_units": 2,
    "head_hop": 10,
    "head_window": 40,
}

PRINCIPAL: dict[str, Any] = {
    "stem": "spectrum",
    "stem_stride": 10,
    "stem_kernel": 40,
    "strides": [2],
    "head_phase": "propagated",
    "principal_bands": 6,
    "latent_dim": 5,
}
"""Changes that put a linear autoencoder beside the network."""


def codec_config(**changes: Any) -> CodecConfig:
    """A codec of a few thousand parameters: 4 kHz, 80 samples a frame."""
    return codec_config_from_dict({**_SHAPE, **changes})


def small_codec(seed: int = 0, **changes: Any) -> VAECodec:
    """An untrained codec of `codec_config` in eval mode."""
    return VAECodec(codec_config(**changes), seed).eval()


def codec_settings_values(**changes: Any) -> dict[str, Any]:
    """Values of `TrainCodecSettings` that train the small codec in a second."""
    values: dict[str, Any] = {
        "codec": _SHAPE,
        "loss": {"window_lengths": [64, 32], "mel_window": 64, "num_mels": 12},
        "optim": {"num_steps": 8, "warmup_steps": 2, "learning_rate": 3e-3},
        "crops": {"duration_s": 0.2, "per_step": 4},
        "tracking": {"is_enabled": False},
        "checkpoint": {"every": 3, "num_to_keep": 2},
        "log_every": 2,
        "validation_crops": 3,
        "reconstructions": 1,
        "reconstruction_s": 0.5,
    }
    return {**values, **changes}


def write_clips(folder: Path, *, broken: int = 0) -> Folder:
    """A complete `clips/` of tones and noise in three modalities, some files not audio."""
    audio = folder / "audio"
    audio.mkdir(parents=True)
    rows = [_clip(audio, index) for index in range(9)]
    for index in range(broken):
        path = audio / f"broken-{index}.wav"
        path.write_bytes(b"not audio at all")
        rows.append({**rows[0], "uri": str(path)})
    clips = Folder.at(folder / "clips")
    clips.write_bytes("parts/part-00000000.parquet", table_bytes(pa.Table.from_pylist(rows)))
    finish(clips, {"stage": "ingest", "written": len(rows)})
    return clips


def _clip(audio: Path, index: int) -> dict[str, Any]:
    rate = (4000, 8000, 6000)[index % 3]
    num_samples = rate * (index + 1) // 6
    time_s = np.arange(num_samples) / rate
    noise = np.random.default_rng(index).normal(size=num_samples)
    waveform = 0.3 * np.sin(2 * np.pi * 100 * (index + 1) * time_s) + 0.02 * noise
    if index % 2:
        waveform = np.stack([waveform, 0.5 * waveform], axis=1)
    path = audio / f"{index}.flac"
    soundfile.write(path, waveform, rate)
    return {
        "uri": str(path),
        "start_s": None,
        "end_s": None,
        "split": "validation" if index == 8 else "train",
        "sample_rate": rate,
        "num_samples": num_samples,
        "modality": ("speech", "sound", "music")[index % 3],
    }


def joined_streams(
    codec: AudioCodec, latents: Sequence[torch.Tensor], draw: random.Random
) -> list[torch.Tensor]:
    """Waveforms of requests that join, pause and leave one batch, in pieces of random sizes."""
    states: dict[int, Any] = {}
    position, pieces = [0] * len(latents), [[] for _ in latents]
    arrived = 0
    while arrived < len(latents) or states:
        for _ in range(min(draw.randint(0, 2), len(latents) - arrived)):
            states[arrived] = codec.initial_state()
            arrived += 1
        size = draw.randint(0, 4)
        rows = [i for i in states if position[i] + size <= len(latents[i]) and draw.random() < 0.8]
        if not rows:
            continue
        chunk = torch.stack([latents[i][position[i] : position[i] + size] for i in rows])
        is_last = [position[i] + size == len(latents[i]) for i in rows]
        found, after = codec.decode_stream(chunk, [states[i] for i in rows], is_last)
        for row, piece, state, ends in zip(rows, found, after, is_last, strict=True):
            pieces[row].append(piece)
            position[row] += size
            states[row] = state
            if ends:
                del states[row]
    return [torch.cat(some, dim=-1) for some in pieces]
