"""The speech engine speaks, or says why it does not."""

from __future__ import annotations

import espeakng_loader
import numpy as np
import pytest

from pipeline.data.starter.espeak import Espeak, SpeechEngineError

_MANNER = {"words_per_minute": 150, "pitch": 50, "pitch_range": 50}


def test_it_speaks_at_its_rate_and_longer_texts_last_longer() -> None:
    with Espeak() as engine:
        short = engine.say("seven", "en-us+f2", **_MANNER)
        long = engine.say("seven boats and eight birds", "en-us+f2", **_MANNER)
    assert engine.sample_rate == 22_050
    assert 0.2 < len(short) / 22_050 < 1.2
    assert len(long) > 1.5 * len(short)
    assert 0.05 < np.abs(short).max() <= 1


def test_rate_and_letters_beyond_ascii_are_heard() -> None:
    with Espeak() as engine:
        slow = engine.say("fünf Bücher", "de+m3", **_MANNER | {"words_per_minute": 90})
        fast = engine.say("fünf Bücher", "de+m3", **_MANNER | {"words_per_minute": 250})
    assert len(slow) > 1.5 * len(fast)


@pytest.mark.parametrize("voice", ["xx-nowhere", "en-us+nobody"])
def test_unknown_voices_and_variants_are_named(voice: str) -> None:
    with Espeak() as engine, pytest.raises(SpeechEngineError, match=voice.rpartition("+")[2]):
        engine.say("seven", voice, **_MANNER)


def test_a_text_without_sound_is_an_error() -> None:
    with Espeak() as engine, pytest.raises(SpeechEngineError, match="spoke nothing"):
        engine.say("", "en-us", **_MANNER)


def test_a_library_that_cannot_load_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(espeakng_loader, "get_library_path", lambda: "/nonexistent/lib.so")
    with pytest.raises(SpeechEngineError, match=r"/nonexistent/lib\.so.*reinstall"):
        Espeak()


def test_missing_voice_data_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(espeakng_loader, "get_data_path", lambda: "/nonexistent/data")
    with pytest.raises(SpeechEngineError, match="/nonexistent/data"):
        Espeak()
