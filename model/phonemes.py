"""Pronunciation: words as symbols of the International Phonetic Alphabet, by eSpeak NG.

The library is part of the package `espeakng-loader`. It has one state per process, so this module
is its only owner: the formant voices of the starter corpus open it here too.
"""

from __future__ import annotations

import ctypes
import functools
import re
import threading
from pathlib import Path

_SYNCHRONOUS = 2
_DO_NOT_EXIT = 0x8000  # or the library ends the process when its data are missing
_UTF8, _IPA = 1, 2
_OK = 0
_END_MARK = re.compile(r"([,.;:!?])\W*$")
_SWITCH = re.compile(r"\([a-z-]+\)")
_VOICES = {"en": "en-us", "zh": "cmn"}
"""Voices of eSpeak NG whose name is not the language's own."""
_LOCK = threading.Lock()


class PronunciationError(ValueError):
    """The library that knows how words are pronounced is missing or broken."""


class UnknownLanguageError(ValueError):
    """The library does not know how a language is pronounced."""


@functools.cache
def library() -> ctypes.CDLL:
    """The speech library of this process, initialised.

    Raises:
        PronunciationError: If it cannot be loaded or finds no data.
    """
    try:
        import espeakng_loader
    except ImportError as error:
        raise PronunciationError(
            "pronunciation needs the package espeakng-loader; install it"
        ) from error
    path, data = espeakng_loader.get_library_path(), espeakng_loader.get_data_path()
    try:
        loaded = ctypes.CDLL(path)
        loaded.espeak_TextToPhonemes.restype = ctypes.c_char_p
        loaded.espeak_ng_SetRandSeed.restype = ctypes.c_int
    except (OSError, AttributeError) as error:
        raise PronunciationError(
            f"cannot load the speech library {path}: {error}; reinstall espeakng-loader for this "
            "platform"
        ) from error
    is_there = Path(data, "voices").is_dir()  # the library starts without
    if not is_there or loaded.espeak_Initialize(_SYNCHRONOUS, 0, data.encode(), _DO_NOT_EXIT) <= 0:
        raise PronunciationError(
            f"eSpeak NG found no voice data at {data}; reinstall espeakng-loader"
        )
    return loaded


def close_library() -> None:
    """End the library; the next use opens it anew, with its first state."""
    with _LOCK:
        if library.cache_info().currsize:
            library().espeak_Terminate()
            library.cache_clear()


def pronounced(text: str, language: str | None = None) -> str:
    """The sounds of a text: IPA with stress, words separated by spaces, clauses by their marks.

    The language is a BCP 47 tag, None is English; its rules spell numbers and abbreviations out.

    Raises:
        UnknownLanguageError: If eSpeak NG does not know the language.
        PronunciationError: If it is not there.
    """
    with _LOCK:
        return _pronounced(text, (language or "en").lower())


@functools.lru_cache(4096)
def _pronounced(text: str, language: str) -> str:
    speech = library()
    _choose_voice(speech, language)
    rest = ctypes.c_char_p(text.replace("\0", " ").encode())
    spoken = ""
    while (before := rest.value) is not None:
        sounds = speech.espeak_TextToPhonemes(ctypes.byref(rest), _UTF8, _IPA) or b""
        clause = _SWITCH.sub("", sounds.decode()).strip()
        if clause:
            # The library has read one character of the next clause too.
            read = before.removesuffix(rest.value or b"").decode(errors="ignore")
            mark = _END_MARK.search(read if rest.value is None else read[:-1])
            spoken += f"{clause}{mark[1] if mark else ','} "
    spoken = spoken.strip()
    # A text that ends without a mark gets none.
    return spoken if _END_MARK.search(text) else spoken.removesuffix(",")


def _choose_voice(speech: ctypes.CDLL, language: str) -> None:
    """Set the voice of a language, or of the language without its region."""
    primary = language.partition("-")[0]
    for name in (language, primary):
        if speech.espeak_SetVoiceByName(_VOICES.get(name, name).encode()) == _OK:
            return
    raise UnknownLanguageError(f"eSpeak NG has no voice for the language {language!r}")
