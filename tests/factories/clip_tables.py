"""Complete `clips/` and `latents/` directories of rows alone: what `describe` reads, no audio."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.data.schema import CLIPS, LATENTS, ClipRow, clip_columns
from pipeline.storage import Folder, sha256, table_bytes

_LANGUAGES = ("en", "en-gb", "de", "fr", "es", "it", "pt", "zh", "ja", "ar", "hi", "ru", None)
_SOUNDS = ("dog", "rain", "church_bells", "engine", "glass breaking", "crowd", "sea waves", "clock")
_MUSIC = ("piano", "acoustic guitar", "drums", "jazz", "folk", "rock", "sad", "happy", "slow tempo")
_WORDS = ("the", "north", "wind", "and", "sun", "were", "arguing", "one", "day", "about", "which")


def write_clip_tables(
    root: Path, parts: Iterable[list[tuple[ClipRow, dict[str, float]]]]
) -> tuple[Folder, Folder]:
    """Write `clips` and `latents` below `root`, a part at a time.

    Args:
        root: Parent of both.
        parts: Clips and what was measured of them.
    """
    clips, latents = Folder.at(root / "clips"), Folder.at(root / "latents")
    files: dict[str, dict[str, str]] = {"clips": {}, "latents": {}}
    for number, rows in enumerate(parts):
        clip_rows = [_columns(row, measured) for row, measured in rows]
        latent_rows = [
            {"clip_id": row.clip_id, "attributes": json.dumps(measured)} for row, measured in rows
        ]
        for folder, name, schema, values in (
            (clips, f"parts/part-{number:08d}.parquet", CLIPS, clip_rows),
            (latents, f"parts/latents-{number:08d}.parquet", LATENTS, latent_rows),
        ):
            payload = table_bytes(pa.Table.from_pylist(values, schema=schema))
            folder.write_bytes(name, payload)
            files["clips" if folder is clips else "latents"][name] = sha256(payload)
    clips.finish({"stage": "ingest", "inputs": {}, "files": files["clips"]})
    inputs = {"clips": clips.digest}
    latents.finish({"stage": "encode", "inputs": inputs, "files": files["latents"]})
    return clips, latents


def _columns(row: ClipRow, measured: dict[str, float]) -> dict[str, Any]:
    duration_s = measured.get("duration_s", 1.0)
    return clip_columns(row) | {
        "num_samples": round(duration_s * 16_000),
        "sample_rate": 16_000,
        "num_channels": 1,
        "duration_s": duration_s,
        "content_sha256": sha256(row.clip_id.encode()),
        "fingerprint": "",
        "split": "train",
    }


def random_clip(number: int, rng: random.Random) -> tuple[ClipRow, dict[str, float]]:
    """A clip of any kind, of which about as much is known as of one in a real corpus."""
    kind = rng.choice(["speech", "speech", "speech", "singing", "sound", "music"])
    measured = {
        "duration_s": round(rng.uniform(1, 15), 3),
        "level_dbfs": rng.uniform(-45, -5),
        "bandwidth_hz": rng.uniform(3000, 22_000),
        "pitch_median_hz": rng.uniform(80, 400),
    }
    row: dict[str, Any] = {"modality": "music" if kind == "singing" else kind}
    if kind in ("speech", "singing"):
        row["transcript"] = " ".join(rng.choice(_WORDS) for _ in range(rng.randrange(4, 30)))
        row["language"] = rng.choice(_LANGUAGES)
        row["speaker_sex"] = rng.choice(["female", "male", None])
        row["is_singing"] = kind == "singing"
        measured |= {
            "active_s": measured["duration_s"] * 0.8,
            "pitch_range_semitones": rng.uniform(1, 14),
            "pause_share": rng.uniform(0, 0.4),
            "snr_db": rng.uniform(5, 50),
            "decay_time_s": rng.uniform(0.1, 1.3),
        }
    if kind in ("sound", "music"):
        row["tags"] = tuple(rng.sample(_SOUNDS if kind == "sound" else _MUSIC, rng.randrange(1, 4)))
    if kind != "speech":
        measured |= {
            "brightness_hz": rng.uniform(300, 7000),
            "dynamic_range_db": rng.uniform(1, 30),
            "level_trend_db": rng.uniform(-15, 15),
            "onset_rate_hz": rng.uniform(0, 6),
            "stereo_width": rng.uniform(0, 0.4),
            "tempo_bpm": rng.uniform(60, 170),
            "beat_strength": rng.uniform(0, 1),
            "key_number": float(rng.randrange(24)),
            "key_confidence": rng.uniform(0, 0.3),
        }
    clip_id = f"made/{number:07d}"
    return ClipRow(clip_id=clip_id, corpus="made", uri=f"/none/{number}.wav", **row), measured
