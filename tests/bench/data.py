"""Decoding and resampling of the data stages, one process."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import soundfile
import torch
import torchaudio

from pipeline.audio.files import read_audio, resample
from tests.bench.measure import Row, compare
from tests.factories.audio_files import ffmpeg_bytes, tone

NUM_FILES = 12
DURATION_S = 10.0
SOURCE_RATE = 44_100
TARGET_RATE = 16_000
NUM_SPANS = 200
SPANNED_S = 300.0


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
        yield from span_rows(Path(folder) / "talk.m4a", repeats)
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


def span_rows(path: Path, repeats: int) -> Iterator[Row]:
    """All spans of a compressed file, against decoding from the start for each, and once."""
    samples = int(SPANNED_S * TARGET_RATE)
    path.write_bytes(ffmpeg_bytes(tone(samples, rate=TARGET_RATE, seed=1), TARGET_RATE))
    length_s = SPANNED_S / NUM_SPANS
    spans = [(number * length_s, (number + 1) * length_s) for number in range(NUM_SPANS)]
    copies = itertools.count()

    def in_one_pass() -> None:
        uri = str(path.with_name(f"{next(copies)}.m4a"))  # a file that no pass has seen
        shutil.copyfile(path, uri)
        for start_s, end_s in spans:
            read_audio(uri, start_s, end_s)

    def from_the_start() -> None:
        for start_s, end_s in spans:
            first, stop = round(start_s * TARGET_RATE), round(end_s * TARGET_RATE)
            done, parts = 0, []
            with av.open(str(path)) as file:
                for frame in file.decode(audio=0):
                    parts.append(frame.to_ndarray()[:, max(0, first - done) :])
                    done += frame.samples
                    if done >= stop:
                        break

    def value(seconds: float) -> str:
        return f"{SPANNED_S / seconds:.0f} audio-seconds per second"

    what = f"{NUM_SPANS} spans that tile {SPANNED_S:g} s of AAC in MP4, one pass for all"
    start = "PyAV from the start of the file for each span"
    yield compare(what, in_one_pass, start, from_the_start, 1, value, warms_up=False)
    whole = "the whole file, read once"
    yield compare(what, in_one_pass, whole, lambda: read_audio(str(path)), repeats, value)
