"""Formant speech from the eSpeak NG library that `espeakng_loader` brings, through ctypes.

The library keeps state from one utterance to the next (oscillator phases, its noise generator), so
the same bytes come back only for the same utterances in the same order in a fresh process.
"""

from __future__ import annotations

import ctypes
import logging
from pathlib import Path
from typing import Self

import espeakng_loader
import numpy as np

from model.phonemes import PronunciationError, close_library, library
from pipeline.data.starter.dsp import Wave
from pipeline.data.starter.engine import Manner, SpeechEngineError
from pipeline.data.starter.voices import EspeakVoice, Speaker

logger = logging.getLogger(__name__)

_CHARS_UTF8 = 1
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_OK = 0
_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


class Espeak:
    """The speech engine, opened once per process and closed at the end of a `with` block."""

    def __init__(self, seed: int = 1) -> None:
        self._library = _opened()
        variants = Path(espeakng_loader.get_data_path(), "voices", "!v")
        self.sample_rate: int = self._library.espeak_ng_GetSampleRate()
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        self._variants = {path.name for path in variants.iterdir()}
        self._pieces: list[np.ndarray] = []
        self._callback = _CALLBACK(self._collect)  # kept: the library holds only a pointer
        self._library.espeak_SetSynthCallback(self._callback)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        close_library()

    def speak(self, text: str, speaker: Speaker, manner: Manner) -> Wave:
        """Speak a text at `sample_rate`; see `SpeechEngine.speak`."""
        voice = speaker.voice
        if not isinstance(voice, EspeakVoice):
            raise SpeechEngineError(f"eSpeak NG has no voice for {speaker.name!r}")
        return self.say(
            text,
            voice.name,
            words_per_minute=int(np.clip(voice.words_per_minute * manner.pace, 80, 320)),
            pitch=int(np.clip(voice.pitch * manner.pitch, 0, 100)),
            pitch_range=int(np.clip(voice.pitch_range * manner.liveliness, 0, 100)),
        )

    def say(
        self, text: str, voice: str, *, words_per_minute: int, pitch: int, pitch_range: int
    ) -> Wave:
        """Speak a text at `sample_rate`.

        Args:
            text: What to say.
            voice: `<language>+<variant>`, e.g. `en-us+f2`.
            words_per_minute: 80 to 450.
            pitch: 0 to 100; 50 is the voice's own.
            pitch_range: 0 (monotone) to 100; 50 is the voice's own.

        Raises:
            SpeechEngineError: If voice or variant do not exist, or nothing was spoken.
        """
        variant = voice.partition("+")[2]
        if variant and variant not in self._variants:  # the library would ignore it silently
            raise SpeechEngineError(f"eSpeak NG has no voice variant {variant!r}")
        if self._library.espeak_SetVoiceByName(voice.encode()) != _OK:
            raise SpeechEngineError(f"eSpeak NG has no voice {voice!r}")
        settings = {_RATE: words_per_minute, _VOLUME: 100, _PITCH: pitch, _RANGE: pitch_range}
        for parameter, value in settings.items():
            self._library.espeak_SetParameter(parameter, value, 0)
        self._pieces.clear()
        encoded = text.encode()
        status = self._library.espeak_Synth(
            encoded, len(encoded) + 1, 0, 1, 0, _CHARS_UTF8, None, None
        )
        self._library.espeak_Synchronize()
        wave = np.concatenate([np.zeros(0), *self._pieces]) / 32768.0
        if status != _OK or not wave.any():
            raise SpeechEngineError(f"eSpeak NG spoke nothing for {text!r} with {voice!r}")
        return wave

    def _collect(
        self, pcm: ctypes._Pointer[ctypes.c_short], count: int, _events: int | None
    ) -> int:
        if pcm and count > 0:
            self._pieces.append(np.ctypeslib.as_array(pcm, (count,)).astype(np.float64))
        return 0


def _opened() -> ctypes.CDLL:
    try:
        speech = library()
    except PronunciationError as error:
        raise SpeechEngineError(
            f"{error}, or leave it out of speech.engines and speech.languages"
        ) from error
    speech.espeak_Synth.argtypes = [
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_uint,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_uint,
        ctypes.c_void_p,
        ctypes.c_void_p,
    ]
    return speech
