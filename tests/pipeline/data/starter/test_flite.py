"""Flite speaks with the pace, pitch and size asked for, or says what to install."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.acoustics.pitch import PitchRange, pitch_track
from pipeline.audio.files import resample
from pipeline.data.starter.engine import Manner, SpeechEngineError
from pipeline.data.starter.flite import Flite
from pipeline.data.starter.voices import SPEAKERS, FliteVoice, Speaker

needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="Debian's package flite")
_FLITE = {who.name: who for who in SPEAKERS if isinstance(who.voice, FliteVoice)}
_TEXT = "We were early on our way."


def _pitch_hz(wave: np.ndarray) -> float:
    narrow = resample(wave[None].astype(np.float32), Flite.sample_rate, 8000)[0]
    track = pitch_track(narrow, 8000, PitchRange(60.0, 420.0))
    return float(np.median(track[track > 0]))


def _speaker(voice: FliteVoice) -> Speaker:
    return replace(_FLITE["emma"], voice=voice)


@needs_flite
def test_the_same_text_is_the_same_wave_whatever_was_spoken_before() -> None:
    engine = Flite()
    first = engine.speak(_TEXT, _FLITE["grace"], Manner())
    engine.speak("Something else.", _FLITE["james"], Manner())
    assert np.array_equal(engine.speak(_TEXT, _FLITE["grace"], Manner()), first)
    assert 1.0 < len(first) / engine.sample_rate < 3.0


@needs_flite
def test_pace_divides_the_duration() -> None:
    slow, fast = (
        len(Flite().speak(_TEXT, _FLITE["emma"], Manner(pace=pace))) for pace in (0.75, 1.5)
    )
    assert slow / fast == pytest.approx(2, rel=0.05)


@needs_flite
def test_pitch_is_the_one_asked_for() -> None:
    wave = Flite().speak(_TEXT, _speaker(FliteVoice("slt", 200)), Manner(pitch=1.1))
    assert _pitch_hz(wave) == pytest.approx(220, rel=0.06)


@needs_flite
def test_a_larger_speaker_is_lower_at_the_same_pace() -> None:
    plain, large = (
        Flite().speak(_TEXT, _speaker(FliteVoice("rms", size=size)), Manner())
        for size in (1.0, 1.2)
    )
    assert _pitch_hz(plain) / _pitch_hz(large) == pytest.approx(1.2, rel=0.06)
    assert len(large) / len(plain) == pytest.approx(1, rel=0.05)


@needs_flite
def test_voices_of_one_sex_and_accent_differ_in_pitch() -> None:
    heard = {who.name: _pitch_hz(Flite().speak(_TEXT, who, Manner())) for who in _FLITE.values()}
    for low, high in [
        ("grace", "emma"),
        ("emma", "olivia"),
        ("henry", "james"),
        ("james", "lucas"),
        ("duncan", "angus"),
        ("angus", "ewan"),
        ("rob", "max"),
    ]:
        assert heard[high] > 1.08 * heard[low], (low, high)


@needs_flite
@pytest.mark.parametrize("name", ["ada", "emma"])
def test_a_voice_that_flite_lacks_is_named(name: str) -> None:
    speaker = next(who for who in SPEAKERS if who.name == name)
    if name == "emma":
        speaker = _speaker(FliteVoice("nobody"))
    with pytest.raises(SpeechEngineError, match=rf"no voice for '{name}'.*slt"):
        Flite().speak(_TEXT, speaker, Manner())


@needs_flite
def test_a_text_without_sound_is_an_error() -> None:
    with pytest.raises(SpeechEngineError, match=r"flite (spoke nothing|gave no audio)"):
        Flite().speak("", _FLITE["emma"], Manner())


def test_a_missing_program_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(SpeechEngineError, match=r"apt-get install flite.*speech\.engines"):
        Flite()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('[ "$1" = -lv ] && echo "Voices available: slt" || echo noise', "gave no audio for 'We"),
        ('[ "$1" = -lv ] && echo "Voices available: slt" || exit 3', "exit status 3"),
    ],
)
def test_a_program_that_fails_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, message: str
) -> None:
    program = tmp_path / "flite"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(SpeechEngineError, match=message):
        Flite().speak(_TEXT, _FLITE["emma"], Manner())
