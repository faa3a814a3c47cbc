"""Waveforms that people listen to, as WAV files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from pipeline.storage import Folder


def write_wav(path: Path, waveform: NDArray[np.float32], sample_rate: int) -> None:
    """Write a waveform as 16-bit PCM; the file appears complete or not at all.

    Args:
        path: File to write.
        waveform: `channels samples`; values beyond full scale are clipped, NaN becomes silence.
        sample_rate: Hz.
    """
    sink = io.BytesIO()
    pcm = np.clip(np.nan_to_num(waveform), -1, 1).T
    soundfile.write(sink, pcm, sample_rate, format="WAV", subtype="PCM_16")
    Folder.at(path.parent).write_bytes(path.name, sink.getvalue())
