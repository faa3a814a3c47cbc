"""Short pieces of audio inside the page, up to a total size."""

from __future__ import annotations

import io
import logging

import numpy as np
import soundfile
from numpy.typing import NDArray

from pipeline.audio.files import AudioError, open_audio, resample
from pipeline.page import MEDIA_TYPES, data_uri

logger = logging.getLogger(__name__)

_MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


class Listening:
    """Cuts and encodes the audio of a page, and keeps count of its size.

    Args:
        seconds: Audio kept from the beginning of a clip.
        max_bytes: Largest encoded size of all pieces together.
    """

    def __init__(self, seconds: float, max_bytes: int) -> None:
        self._seconds = seconds
        self._left_bytes = max_bytes

    def piece(
        self, uri: str, start_s: float | None = None, end_s: float | None = None
    ) -> tuple[str, str]:
        """Address of the first seconds of a clip as MP3, or why there is none.

        Returns:
            The address and an empty text, or an empty address and the reason.
        """
        if self._left_bytes <= 0:
            return "", "left out: the page has its fill of audio"
        try:
            waveform, sample_rate = self._head(uri, start_s, end_s)
        except AudioError as error:
            return "", f"cannot be played: {error}"
        except OSError as error:
            logger.warning("cannot open %s: %s", uri, error)
            return "", "cannot be played: the file cannot be opened"
        payload = _mp3(waveform, sample_rate)
        self._left_bytes -= len(payload)
        return data_uri(payload, MEDIA_TYPES[".mp3"]), ""

    def _head(
        self, uri: str, start_s: float | None, end_s: float | None
    ) -> tuple[NDArray[np.float32], int]:
        with open_audio(uri, start_s, end_s, is_exact=False) as stream:
            wanted = round(self._seconds * stream.info.sample_rate)
            blocks, num_samples = [], 0
            for block in stream.blocks():
                blocks.append(block[:2])
                num_samples += block.shape[1]
                if num_samples >= wanted:
                    break
        return np.concatenate(blocks, axis=1)[:, :wanted], stream.info.sample_rate


def _mp3(waveform: NDArray[np.float32], sample_rate: int) -> bytes:
    samples = np.clip(np.nan_to_num(waveform), -1, 1).astype(np.float32)
    rate = min(_MP3_RATES, key=lambda known: (known < sample_rate, abs(known - sample_rate)))
    if rate != sample_rate:
        samples = np.clip(resample(samples, sample_rate, rate), -1, 1)
    sink = io.BytesIO()
    soundfile.write(sink, samples.T, rate, format="MP3")
    return sink.getvalue()
