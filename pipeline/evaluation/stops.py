"""Stop errors of speech: audio that ends before its last word, long after it, or at its limit.

A recogniser may miss the last word of a clip that has it, so the rates of real recordings and of
the codec's reconstruction stand beside those of the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.bundle.reading import speech_bounds_s
from pipeline.evaluation.recogniser import Heard
from pipeline.evaluation.spoken_words import Errors

LATE_AFTER_S = 1.0
"""A tail longer than this after the last word is a late stop, seconds."""
EARLY_BELOW = 0.5
"""Speech shorter than this share of the real recording is an early stop."""
KINDS = ("early", "late", "missing")
"""Kinds of stop error; a clip has at most one."""
_FRAME_S = 0.02
_BELOW_LOUDEST_DB = 35.0
_SILENCE_DBFS = -60.0
_REACHED = 0.98  # the stop head decides by the block, so the maximum is met roughly


@dataclass(frozen=True)
class Spoken:
    """One utterance to be judged.

    Attributes:
        transcript: Text that was to be spoken.
        duration_s: Duration of the audio, seconds.
        speech_ends_s: End of the last audible frame, seconds; 0 if all is silent.
        real_speech_s: End of the last audible frame of the real recording, seconds.
        heard: Recognised text; None if there is no recogniser for the language.
        errors: Differences between recognised text and transcript.
    """

    transcript: str
    duration_s: float
    speech_ends_s: float
    real_speech_s: float
    heard: Heard | None = None
    errors: Errors | None = None


def stop_error(spoken: Spoken) -> str | None:
    """The stop error of an utterance, or None: missing, then early, then late.

    - missing: the audio is as long as the transcript may take at most.
    - early: the recogniser heard nothing of the last word or words, or the speech is shorter than
      half of the real recording's.
    - late: more than one second follows the last word that the transcript has (silence or babble).
    """
    if spoken.duration_s >= _REACHED * speech_bounds_s(spoken.transcript)[1]:
        return "missing"
    if spoken.speech_ends_s < EARLY_BELOW * spoken.real_speech_s:
        return "early"
    errors = spoken.errors
    understood = errors is not None and errors.missing_at_end < errors.words
    if errors is not None and understood and errors.missing_at_end:
        return "early"
    return "late" if _tail_s(spoken, understood=understood) > LATE_AFTER_S else None


def speech_end_s(waveform: Tensor, sample_rate: int) -> float:
    """End of the last frame within 35 dB of the loudest one, seconds; 0 for silence.

    Args:
        waveform: `channels samples`.
        sample_rate: Hz.
    """
    frame = max(1, round(_FRAME_S * sample_rate))
    padded = torch.nn.functional.pad(waveform.float(), (0, -waveform.shape[-1] % frame))
    power = padded.reshape(waveform.shape[0], -1, frame).square().mean((0, 2)).numpy()
    levels = 10 * np.log10(np.maximum(power, 1e-12))
    if not len(levels) or levels.max() < _SILENCE_DBFS:
        return 0.0
    last = int(np.flatnonzero(levels >= levels.max() - _BELOW_LOUDEST_DB)[-1])
    return min((last + 1) * frame, waveform.shape[-1]) / sample_rate


def _tail_s(spoken: Spoken, *, understood: bool) -> float:
    """Seconds after the last word; without a recogniser, after the last audible frame."""
    heard, errors = spoken.heard, spoken.errors
    if heard is None or errors is None or not (understood and heard.word_ends_s):
        return spoken.duration_s - spoken.speech_ends_s
    # Words beyond the end of the transcript are babble, and belong to the tail.
    last = max(0, len(heard.word_ends_s) - 1 - errors.extra_at_end)
    return spoken.duration_s - heard.word_ends_s[last]
