"""A complete `clips/` directory of synthetic audio, and a codec folder to encode it with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile

from pipeline.data.schema import CLIPS, ClipRow, clip_columns
from pipeline.storage import Folder, sha256, table_bytes
from tests.factories.cards import finish

RATE = 16_000


def voice(duration_s: float, pitch_hz: float, tract: float = 1.0, seed: int = 0) -> np.ndarray:
    """A buzzing voice: pulses with vibrato through formants scaled by `tract`, in syllables."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(duration_s * RATE)) / RATE
    bend = 1 + 0.06 * np.sin(2 * np.pi * 0.7 * time + rng.uniform(0, 6))
    phase = 2 * np.pi * np.cumsum(pitch_hz * bend) / RATE
    wave = np.zeros_like(time)
    for order in range(1, int(7000 / pitch_hz)):
        frequency = order * pitch_hz
        gain = sum(
            1 / (1 + ((frequency - centre * tract) / width) ** 2)
            for centre, width in ((500, 90), (1500, 120), (2500, 160), (3600, 220))
        )
        wave += gain / order**0.5 * np.sin(order * phase)
    syllables = np.clip(np.sin(2 * np.pi * 2.5 * time + rng.uniform(0, 6)) + 0.6, 0, 1)
    wave = wave * syllables + 0.002 * rng.standard_normal(len(time))
    return (0.3 * wave / np.abs(wave).max()).astype(np.float32)


def tone(duration_s: float, frequency_hz: float) -> np.ndarray:
    time = np.arange(round(duration_s * RATE)) / RATE
    return (0.2 * np.sin(2 * np.pi * frequency_hz * time)).astype(np.float32)


def noise(duration_s: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (0.05 * rng.standard_normal(round(duration_s * RATE))).astype(np.float32)


def write_recordings(folder: Path, waves: dict[str, np.ndarray]) -> None:
    """Audio files of 16 bits at `RATE`, by names relative to a folder."""
    for name, wave in waves.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, wave, RATE, subtype="PCM_16")


def write_clips(
    folder: Path, rows: Sequence[tuple[ClipRow, np.ndarray]], rows_per_part: int = 4
) -> Folder:
    """Write audio beside `folder` and a complete `clips/` directory that names it."""
    audio = folder.parent / "audio"
    audio.mkdir(exist_ok=True)
    target = Folder.at(folder)
    columns = []
    for row, waveform in rows:
        path = Path(row.uri) if row.uri else audio / f"{row.clip_id.replace('/', '-')}.wav"
        if not path.exists():
            soundfile.write(path, waveform.T, RATE, subtype="PCM_16")
        payload = path.read_bytes()
        columns.append(
            clip_columns(row)
            | {
                "uri": str(path),
                "num_samples": waveform.shape[-1],
                "sample_rate": RATE,
                "num_channels": 1 if waveform.ndim == 1 else waveform.shape[0],
                "duration_s": waveform.shape[-1] / RATE,
                "content_sha256": sha256(payload),
                "fingerprint": "",
                "split": row.split or "train",
            }
        )
    files: dict[str, str] = {}
    for number, start in enumerate(range(0, len(columns), rows_per_part)):
        table = pa.Table.from_pylist(columns[start : start + rows_per_part], schema=CLIPS)
        name = f"parts/part-{number:08d}.parquet"
        payload = table_bytes(table)
        target.write_bytes(name, payload)
        files[name] = sha256(payload)
    card: dict[str, Any] = {"stage": "ingest", "inputs": {}, "files": files, "read": len(columns)}
    finish(target, card | {"written": len(columns), "rejected": 0})
    return target


def small_corpus() -> list[tuple[ClipRow, np.ndarray]]:
    """Ten clips of all modalities, languages and splits."""
    rows = []
    for index, pitch in enumerate((105.0, 118.0, 210.0, 225.0)):
        sex = "male" if pitch < 150 else "female"
        row = ClipRow(
            clip_id=f"talk/{index}",
            corpus="talk",
            uri="",
            modality="speech",
            language="en" if index % 2 else "de",
            transcript=f'Line {index}:\n"Says: quoted"',
            speaker=f"talk/{sex}",
            speaker_sex=sex,
            split="validation" if index == 3 else None,
        )
        rows.append((row, voice(0.9 + 0.3 * index, pitch, 1.15 if sex == "female" else 1.0, index)))
    for index, tag in enumerate(("church_bells", "rain", "engine")):
        row = ClipRow(
            clip_id=f"noise/{index}", corpus="noise", uri="", modality="sound", tags=(tag,)
        )
        rows.append((row, noise(0.7 + 0.2 * index, index)))
    for index, frequency in enumerate((220.0, 440.0)):
        row = ClipRow(
            clip_id=f"tune/{index}",
            corpus="tune",
            uri="",
            modality="music",
            captions=("A single steady tone.",) if index else (),
            tags=("tone", "synthesizer"),
            title="Study in A",
        )
        rows.append((row, tone(1.5 + index, frequency)))
    song = ClipRow(
        clip_id="tune/song",
        corpus="tune",
        uri="",
        modality="music",
        language="it",
        transcript="La la la",
        is_singing=True,
        speaker_sex="female",
    )
    rows.append((song, voice(2.0, 330.0, 1.2, 9)))
    return rows


def clip_values(**given: Any) -> dict[str, Any]:
    """A row of `clips/` as plain values; speech of which nothing is known unless said."""
    row = ClipRow(clip_id="corpus/clip", corpus="corpus", uri="", modality="speech")
    return clip_columns(row) | given


def write_codec(folder: Path) -> str:
    """A folder with the untrained tiny codec."""
    from model.codec.registry import build_codec, codec_preset, save_codec

    save_codec(build_codec(codec_preset("tiny")), folder)
    return str(folder)
