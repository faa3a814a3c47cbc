"""Whether speech matches its transcript, by a small recogniser with its own English model.

pocketsphinx makes many errors on open vocabulary, so the number to watch is the gap to real or
original recordings under the same recogniser, and the accuracy on digits, which is reliable.
"""

from __future__ import annotations

import importlib.util
import re
from typing import Any

import numpy as np
import soxr
from torch import Tensor

RECOGNISER_RATE = 16_000
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_GRAMMAR = f"#JSGF V1.0; grammar digit; public <digit> = {' | '.join(DIGITS)};"
_LEVEL = 0.1
"""RMS amplitude to which clips are scaled for the recogniser: -20 dBFS."""


def is_available() -> bool:
    """Whether the extra `eval` is installed."""
    return all(importlib.util.find_spec(name) for name in ("pocketsphinx", "jiwer", "num2words"))


class Recogniser:
    """English speech to text.

    Raises:
        ImportError: If pocketsphinx is not installed.
    """

    def __init__(self, *, single_digit: bool = False) -> None:
        """Load the model.

        Args:
            single_digit: Restrict to one of the ten digits.
        """
        import pocketsphinx

        self._decoder: Any = pocketsphinx.Decoder(
            samprate=float(RECOGNISER_RATE),
            loglevel="FATAL",
            cmn="batch",  # the running mean would carry over from clip to clip
            **({"lm": None} if single_digit else {}),
        )
        if single_digit:
            self._decoder.add_jsgf_string("digit", _GRAMMAR)
            self._decoder.activate_search("digit")

    def transcribe(self, waveform: Tensor, sample_rate: int) -> str:
        """Words heard, lower case, separated by spaces; empty if none.

        What was heard before has no influence.

        Args:
            waveform: `channels samples`; channels are averaged.
            sample_rate: Hz.
        """
        mono = waveform.float().mean(0).numpy()
        resampled = soxr.resample(mono, sample_rate, RECOGNISER_RATE)
        level = float(np.sqrt(np.mean(resampled**2))) or 1.0
        pcm = (np.clip(resampled * (_LEVEL / level), -1, 1) * 32767).astype("<i2").tobytes()
        self._decoder.reinit_feat()  # forget the noise of the clip before
        self._decoder.start_utt()
        self._decoder.process_raw(pcm, full_utt=True)
        self._decoder.end_utt()
        hypothesis = self._decoder.hyp()
        return str(hypothesis.hypstr) if hypothesis is not None else ""


def normalise(text: str) -> str:
    """Lower case, letters and apostrophes only: the form in which digits are compared."""
    return " ".join(re.sub(r"[^a-z' ]+", " ", text.lower()).split())


def is_digit(transcript: str) -> bool:
    """Whether a transcript is one digit word."""
    return normalise(transcript) in DIGITS


def is_heard(waveform: Tensor, sample_rate: int, digit: str, recogniser: Recogniser) -> bool:
    """Whether a digit clip is heard exactly as its transcript.

    Args:
        waveform: `channels samples`.
        sample_rate: Hz.
        digit: The transcript.
        recogniser: Recogniser made with `single_digit`.
    """
    return recogniser.transcribe(waveform, sample_rate) == normalise(digit)
