"""A recording and its words as a prompt that speech goes on from: voice cloning by continuation."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from model.bundle.bundle import Bundle
from model.bundle.limits import RequestError, check_words
from model.bundle.request import SpeechPrompt
from model.text import clean_text
from pipeline.audio_io import resample, to_channels

MIN_PROMPT_S = 1.0
MAX_PROMPT_S = 30.0
_MAX_TRANSCRIPT_CHARS = 1000
_STEP_S = 0.02
_MARGIN_S = 0.04
"""Kept before and after what is heard."""
_BELOW_PEAK_DB = 40.0
_AUDIBLE_DBFS = -60.0


def speech_prompt(
    waveform: NDArray[np.float32], sample_rate: int, transcript: str, bundle: Bundle
) -> SpeechPrompt:
    """The prompt of a recording, without the silence around its speech.

    Silence at the end would read as the end of the speech.

    Args:
        waveform: Recording, `channels samples`.
        sample_rate: Its rate, Hz.
        transcript: What is said in it, verbatim.
        bundle: Its codec encodes the recording.

    Raises:
        RequestError: With the field `continue_transcript` or `continue`, if the words are empty or
            too many, or the recording is silent, shorter than 1 s or longer than 30 s.
    """
    check_words("continue_transcript", transcript, _MAX_TRANSCRIPT_CHARS)
    codec, rate = bundle.codec, bundle.codec.timebase.sample_rate
    fitted = resample(to_channels(waveform, codec.num_channels), sample_rate, rate)
    heard = _without_silence(fitted, rate)
    duration_s = heard.shape[1] / rate
    if not MIN_PROMPT_S <= duration_s <= MAX_PROMPT_S:
        raise RequestError(
            "continue",
            f"the recording holds {duration_s:.2f} s of sound between its silences; a recording to "
            f"continue has {MIN_PROMPT_S:g} to {MAX_PROMPT_S:g} s",
        )
    with torch.inference_mode():
        placed = torch.from_numpy(heard).to(bundle.device)
        latents = codec.encode(placed[None]).mean[0]
    return SpeechPrompt(clean_text(transcript)[0], latents.float().cpu().clone())


def _without_silence(waveform: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """The waveform from its first to its last audible step, a contiguous copy."""
    step = round(_STEP_S * rate)
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
