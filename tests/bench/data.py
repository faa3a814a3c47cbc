"""Decoding and resampling of the data stages, one process."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio

from pipeline.audio_io import read_audio, resample
from tests.bench.measure import Row, compare

NUM_FILES = 12
DURATION_S = 10.0
SOURCE_RATE = 44_100
TARGET_RATE = 16_000


def rows(repeats: int) -> Iterator[Row]:
    """Reading with checks against the bare decoder, resampling against torchaudio."""
    noise = np.random.default_rng(0).normal(size=(int(DURATION_S * SOURCE_RATE), 2))
    waveform = (0.1 * noise).astype(np.float32)

    def speed(seconds: float, clips: int = 1) -> str:
        return f"{clips * DURATION_S / seconds:.0f} audio-seconds per second"

    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / f"{number}.flac") for number in range(NUM_FILES)]
        for path in paths:
            soundfile.write(path, waveform, SOURCE_RATE)
        yield compare(
            f"read {NUM_FILES} stereo FLAC files by content, with faults and limits",
            lambda: [read_audio(path) for path in paths],
            "soundfile.read alone",
            lambda: [soundfile.read(path, dtype="float32") for path in paths],
            repeats,
            lambda seconds: speed(seconds, NUM_FILES),
        )
    channels = np.ascontiguousarray(waveform.T)
    tensor = torch.from_numpy(channels)
    yield compare(
        f"resample {DURATION_S:g} s stereo, 44.1 to 16 kHz (soxr HQ)",
        lambda: resample(channels, SOURCE_RATE, TARGET_RATE),
        "torchaudio, Kaiser window of like length",
        lambda: torchaudio.functional.resample(
            tensor,
            SOURCE_RATE,
            TARGET_RATE,
            lowpass_filter_width=64,
            rolloff=0.9475937167399596,
            resampling_method="sinc_interp_kaiser",
            beta=14.769656459379492,
        ),
        repeats,
        speed,
    )
