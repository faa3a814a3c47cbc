"""Synthetic train-shards in the layout that the data room writes."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from model.config import BackboneConfig, HeadConfig, ModelConfig
from pipeline.data.schema import INDEX, SCHEMA_VERSION
from pipeline.storage import Folder, table_bytes
from tests.factories.cards import finish

LATENT_DIM = 4
SPEAKER_DIM = 6


@dataclass(frozen=True, kw_only=True)
class FakeClip:
    """What one clip of the shards should be."""

    name: str
    modality: str = "sound"
    num_frames: int = 10
    transcript: str | None = None
    speaker: str | None = None
    descriptions: tuple[str, ...] = ("a noise", "some noise")
    is_singing: bool = False
    split: str = "train"


def mixed_clips(count: int = 12, num_frames: int = 9, split: str = "train") -> list[FakeClip]:
    """Speech of two speakers, sound and music, in turn, of slightly different lengths.

    Names are `clip-000` and so on in the training split, and begin with the split in another one.
    """
    name = "clip" if split == "train" else split
    clips = []
    for number in range(count):
        modality = ("speech", "sound", "music")[number % 3]
        is_speech = modality == "speech"
        clips.append(
            FakeClip(
                name=f"{name}-{number:03d}",
                split=split,
                modality=modality,
                num_frames=num_frames + number % 4,
                transcript=f"word {number}" if is_speech else None,
                speaker=f"corpus/{number % 2}" if is_speech else None,
                descriptions=(f"{modality} {number}", f"{modality}, number {number}"),
            )
        )
    return clips


def one_layer_config(**changes: Any) -> ModelConfig:
    """The smallest model of these shards, with bytes for text and without voices."""
    config = ModelConfig(
        backbone=BackboneConfig(
            hidden_dim=16, num_layers=1, num_heads=2, num_kv_heads=1, head_dim=8, ffn_dim=16,
            vocab_size=512,
        ),
        head=HeadConfig(hidden_dim=16, num_layers=1, time_embedding_dim=8),
        latent_dim=LATENT_DIM,
        frames_per_block=4,
    )  # fmt: skip
    return dataclasses.replace(config, **changes)


def clip_mean(name: str, num_frames: int, latent_dim: int = LATENT_DIM) -> np.ndarray:
    """The posterior mean stored for a clip."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    values = np.random.default_rng(seed).normal(size=(num_frames, latent_dim))
    return (0.5 + 2.0 * values).astype(np.float16)


def write_shards(
    path: Path,
    clips: list[FakeClip],
    *,
    latent_dim: int = LATENT_DIM,
    clips_per_shard: int = 5,
    card: dict[str, Any] | None = None,
) -> Folder:
    """Write a complete train-shards directory; log-std is -3 everywhere."""
    folder = Folder.at(path)
    for number, begin in enumerate(range(0, len(clips), clips_per_shard)):
        members: dict[str, bytes] = {}
        for clip in clips[begin : begin + clips_per_shard]:
            members |= _members(clip, latent_dim)
        payload, places = _tar(members)
        name = f"train-{number:05d}"
        folder.write_bytes(f"shards/{name}.tar", payload)
        rows = [_row(c, name, places) for c in clips[begin : begin + clips_per_shard]]
        table = pa.Table.from_pylist(rows, schema=INDEX)
        folder.write_bytes(f"index/{name}.parquet", table_bytes(table))
    silence = np.full(latent_dim, -1.5, dtype="<f2")
    finish(
        folder,
        {
            "schema_version": SCHEMA_VERSION,
            "stage": "shard",
            "latent_stats": {
                "mean": [0.5] * latent_dim,
                "std": [2.0] * latent_dim,
                "frames": {},
            },
            "silence": base64.b64encode(silence.tobytes()).decode(),
            "codec": {
                "digest": "0" * 64,
                "config": {},
                "sample_rate": 16_000,
                "hop_length": 640,
                "latent_dim": latent_dim,
            },
            **(card or {}),
        },
    )
    return folder


def _members(clip: FakeClip, latent_dim: int) -> dict[str, bytes]:
    mean = clip_mean(clip.name, clip.num_frames, latent_dim)
    facts = {
        "descriptions": list(clip.descriptions),
        "transcript": clip.transcript,
        "language": "en" if clip.transcript else None,
        "modality": clip.modality,
        "is_singing": clip.is_singing,
        "duration_s": clip.num_frames * 0.04,
    }
    return {
        f"{clip.name}.mean.npy": _npy(mean),
        f"{clip.name}.log_std.npy": _npy(np.full_like(mean, -3.0)),
        f"{clip.name}.json": json.dumps(facts).encode(),
    }


def _row(clip: FakeClip, shard: str, places: dict[str, tuple[int, int]]) -> dict[str, Any]:
    seed = int.from_bytes(hashlib.sha256(clip.name.encode()).digest()[:4], "big")
    voice = np.random.default_rng(seed).normal(size=SPEAKER_DIM).astype(np.float32)
    row: dict[str, Any] = {
        "clip_id": f"corpus/{clip.name}",
        "key": clip.name,
        "shard": shard,
        "split": clip.split,
        "modality": clip.modality,
        "corpus": "corpus",
        "language": "en" if clip.transcript else None,
        "speaker": clip.speaker,
        "is_singing": clip.is_singing,
        "has_transcript": clip.transcript is not None,
        "num_frames": clip.num_frames,
        "text_bytes": max(map(len, clip.descriptions)) + len(clip.transcript or "") + 20,
        "speaker_embedding": voice.tolist() if clip.speaker else None,
    }
    for name in ("mean", "log_std", "json"):
        suffix = "json" if name == "json" else f"{name}.npy"
        offset, size = places[f"{clip.name}.{suffix}"]
        row |= {f"{name}_offset": offset, f"{name}_size": size}
    return row


def _npy(array: np.ndarray) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array)
    return sink.getvalue()


def _tar(members: dict[str, bytes]) -> tuple[bytes, dict[str, tuple[int, int]]]:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name in sorted(members):
            info = tarfile.TarInfo(name)
            info.size = len(members[name])
            tar.addfile(info, io.BytesIO(members[name]))
    sink.seek(0)
    with tarfile.open(fileobj=sink) as tar:
        places = {info.name: (info.offset_data, info.size) for info in tar}
    return sink.getvalue(), places
