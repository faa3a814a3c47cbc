"""Voice cloning by continuation: speech that goes on from a recording and its transcript.

Checking a recording needs no model, so that a front end does it; encoding it takes a bundle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from model.bundle.limits import RequestError, check_words
from model.text import clean_text
from pipeline.audio.files import resample, to_channels

if TYPE_CHECKING:
    from model.bundle.bundle import Bundle
    from model.bundle.request import SpeechPrompt

MIN_PROMPT_S = 1.0
MAX_PROMPT_S = 30.0
MAX_RATE = 48_000
"""Hz; a recording of a higher rate is brought down to it before it travels to a model."""
_MAX_TRANSCRIPT_CHARS = 1000
_STEP_S = 0.02
_MARGIN_S = 0.04
"""Silence kept before and after the speech, seconds."""
_BELOW_PEAK_DB = 40.0
_AUDIBLE_DBFS = -60.0


@dataclass(frozen=True, eq=False)
class SpokenRecording:
    """A checked recording of speech, in plain values that travel between processes.

    Attributes:
        waveform: `channels samples`, at most two channels, without the silence around the speech.
        sample_rate: Hz.
        transcript: What is said in it, cleaned.
    """

    waveform: NDArray[np.float32]
    sample_rate: int
    transcript: str


def spoken_recording(
    waveform: NDArray[np.float32], sample_rate: int, transcript: str
) -> SpokenRecording:
    """Check a recording and cut the silence around its speech.

    Silence at the end would read as the end of the speech.

    Args:
        waveform: Recording, `channels samples`.
        sample_rate: Rate of the recording, Hz.
        transcript: What is said in it, verbatim.

    Raises:
        RequestError: With the field `continue_transcript` or `continue`, if the words are empty or
            too many, or the recording is silent, shorter than 1 s or longer than 30 s.
    """
    check_words("continue_transcript", transcript, _MAX_TRANSCRIPT_CHARS)
    heard = _without_silence(to_channels(waveform, min(2, len(waveform))), sample_rate)
    duration_s = heard.shape[1] / sample_rate
    if not MIN_PROMPT_S <= duration_s <= MAX_PROMPT_S:
        raise RequestError(
            "continue",
            f"the recording holds {duration_s:.2f} s of sound between its silences; a recording to "
            f"continue has {MIN_PROMPT_S:g} to {MAX_PROMPT_S:g} s",
        )
    rate = min(sample_rate, MAX_RATE)
    return SpokenRecording(resample(heard, sample_rate, rate), rate, clean_text(transcript)[0])


def speech_prompt(recording: SpokenRecording, bundle: Bundle) -> SpeechPrompt:
    """A recording as the model of a bundle reads it.

    Args:
        recording: Checked recording.
        bundle: Bundle whose codec encodes the recording.
    """
    import torch

    from model.bundle.request import SpeechPrompt

    codec = bundle.codec
    fitted = to_channels(recording.waveform, codec.num_channels)
    placed = resample(fitted, recording.sample_rate, codec.timebase.sample_rate)
    with torch.inference_mode():
        waveform = torch.from_numpy(np.ascontiguousarray(placed)).to(bundle.model.device)
        latents = codec.encode(waveform[None]).mean[0]
    return SpeechPrompt(recording.transcript, latents.float().cpu().clone())


def _without_silence(waveform: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """The waveform from its first to its last audible step, a contiguous copy."""
    step = max(1, round(_STEP_S * rate))
    num_steps = waveform.shape[1] // step
    steps = waveform[:, : num_steps * step].reshape(len(waveform), num_steps, step)
    level = 10 * np.log10(np.square(steps).mean(axis=(0, 2)) + 1e-12)
    loudest = level.max(initial=-np.inf)
    audible = np.flatnonzero(level > max(loudest - _BELOW_PEAK_DB, _AUDIBLE_DBFS))
    if not len(audible):
        raise RequestError("continue", "the recording is silent; record one closer")
    margin = round(_MARGIN_S * rate)
    start, end = audible[0] * step - margin, (audible[-1] + 1) * step + margin
    return np.ascontiguousarray(waveform[:, max(0, start) : end])
