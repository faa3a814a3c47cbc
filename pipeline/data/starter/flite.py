"""Speech from Flite, the program of Debian's package `flite`, found when it is first needed.

Each utterance is a run of the program of its own, so the same bytes come back whatever was spoken
before.
"""

from __future__ import annotations

import io
import shutil
import subprocess
from fractions import Fraction

import numpy as np
import soundfile as sf
from scipy import signal

from pipeline.data.starter.dsp import Wave
from pipeline.data.starter.engine import Manner, SpeechEngineError
from pipeline.data.starter.voices import FliteVoice, Speaker

PROGRAM = "flite"
"""Name of the program; found on the PATH."""
_TIMEOUT_S = 60.0
_AUDIBLE = 0.02  # the peak of what is spoken for a text without words stays below 0.01
_LARGEST_DENOMINATOR = 40  # of the ratio that resamples to another size


class Flite:
    """The speech engine; nothing stays open between utterances."""

    sample_rate: int = 16_000

    def __init__(self) -> None:
        found = shutil.which(PROGRAM)
        if found is None:
            raise SpeechEngineError(
                f"speech.engines asks for flite, and there is no program {PROGRAM!r} on the PATH; "
                "install Debian's package flite (apt-get install flite), or set "
                "speech.engines={espeak: 1}"
            )
        self._program = found
        listed = self._run("-lv").decode(errors="replace").partition(":")[2]
        self._voices = frozenset(listed.split())

    def speak(self, text: str, speaker: Speaker, manner: Manner) -> Wave:
        """Speak a text at `sample_rate`; see `SpeechEngine.speak`."""
        voice = speaker.voice
        if not isinstance(voice, FliteVoice) or voice.name not in self._voices:
            raise SpeechEngineError(
                f"flite has no voice for {speaker.name!r}: {getattr(voice, 'name', '')!r} is none "
                f"of {', '.join(sorted(self._voices))}; install Debian's package flite"
            )
        ratio = Fraction(voice.size).limit_denominator(_LARGEST_DENOMINATOR)
        features = {"duration_stretch": voice.stretch / manner.pace / float(ratio)}
        if voice.pitch_hz is not None:
            features["int_f0_target_mean"] = voice.pitch_hz * manner.pitch
        if voice.pitch_range_hz is not None:
            features["int_f0_target_stddev"] = voice.pitch_range_hz * manner.liveliness
        options = ["-voice", voice.name]
        for name, value in features.items():
            options += ["--setf", f"{name}={value:.4f}"]
        payload = self._run(*options, "-t", text, "-o", "/dev/stdout")
        try:
            wave, rate = sf.read(io.BytesIO(payload), dtype="float64")
        except sf.LibsndfileError as error:
            raise SpeechEngineError(f"flite gave no audio for {text!r}: {error}") from error
        if rate != self.sample_rate or wave.ndim != 1 or np.abs(wave).max(initial=0) < _AUDIBLE:
            raise SpeechEngineError(
                f"flite spoke nothing at {self.sample_rate} Hz for {text!r} with {voice.name!r}"
            )
        return _resized(wave, ratio)

    def _run(self, *arguments: str) -> bytes:
        try:
            done = subprocess.run(
                [self._program, *arguments],
                capture_output=True,
                check=True,
                timeout=_TIMEOUT_S,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise SpeechEngineError(f"{self._program} failed: {error}") from error
        return done.stdout


def _resized(wave: Wave, ratio: Fraction) -> Wave:
    """The wave of a speaker whose vocal tract is `ratio` times as long; it lasts as much longer."""
    if ratio == 1:
        return wave
    resized = signal.resample_poly(wave, ratio.numerator, ratio.denominator)
    return np.clip(resized, -1.0, 1.0)
