"""Corpora of sizes that benchmarks need: many short clips, and a few long recordings."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import soundfile

from pipeline.audio.files import read_audio, resample, to_channels

SHORT_CLIP_RATE = 16_000
LONG_RATE = 22_050


def write_short_clips(folder: Path, count: int) -> Path:
    """Write clips of 1 to 3 s of noise, each with a spectrum of its own, and return the folder."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number // 1000:05d}" / f"{number:08d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        wave = rng.normal(size=int(rng.uniform(1, 3) * SHORT_CLIP_RATE)) * 0.1
        wave[1:] += rng.uniform(-0.9, 0.9) * wave[:-1]
        soundfile.write(path, wave.astype(np.float32), SHORT_CLIP_RATE, subtype="PCM_16")
    return folder


def write_long_recordings(folder: Path, sources: list[str], count: int, hours: float) -> Path:
    """Write recordings made of the clips below some folders, FLAC and MP3 in turn.

    The clips follow each other in a random order of each recording, with a pause between two, and
    begin again when they are used up.

    Args:
        folder: Where to.
        sources: Folders with WAV or FLAC files.
        count: Recordings.
        hours: Length of each.

    Raises:
        ValueError: If there are no such files.
    """
    found = (Path(source).rglob(f"*.{kind}") for source in sources for kind in ("wav", "flac"))
    clips = sorted(itertools.chain.from_iterable(found))
    if not clips:
        raise ValueError(f"no .wav or .flac file below {', '.join(sources)}; give other --input")
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        rng = np.random.default_rng(number)
        kind = ("flac", "mp3")[number % 2]
        path = folder / f"{number:03d}.{kind}"
        left = round(hours * 3600 * LONG_RATE)
        with soundfile.SoundFile(path, "w", LONG_RATE, 1, format=kind.upper()) as file:
            while left > 0:
                audio = read_audio(str(clips[rng.integers(len(clips))]))
                mono = resample(to_channels(audio.waveform, 1), audio.sample_rate, LONG_RATE)[0]
                pause = np.zeros(round(rng.uniform(0.3, 0.8) * LONG_RATE), np.float32)
                part = np.concatenate([mono, pause])[:left]
                file.write(part)
                left -= len(part)
    return folder
