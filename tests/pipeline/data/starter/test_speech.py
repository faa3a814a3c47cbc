"""Spoken clips fill their time, say what is written, and sound like who speaks."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from pipeline.data.starter.lexicon import LEXICONS
from pipeline.data.starter.settings import StarterSettings
from pipeline.data.starter.speech import Utterance, utterances
from pipeline.data.starter.voices import SPEAKERS


@pytest.fixture(scope="module")
def spoken() -> list[Utterance]:
    return list(utterances(StarterSettings(minutes=10.0, seed=1)))


def _seconds(clips: list[Utterance]) -> float:
    return sum(len(clip.wave) / clip.sample_rate for clip in clips)


def test_the_time_is_met(spoken: list[Utterance]) -> None:
    assert _seconds(spoken) == pytest.approx(240, rel=0.01)


def test_digits_have_their_share_and_every_english_one_is_spoken(spoken: list[Utterance]) -> None:
    digits = [clip for clip in spoken if clip.kind == "digit"]
    assert _seconds(digits) / 240 == pytest.approx(0.35, abs=0.03)
    english = Counter(clip.transcript for clip in digits if clip.speaker.language == "en")
    assert set(english) == set(LEXICONS["en"].digits)
    assert max(english.values()) <= min(english.values()) + 4


def test_all_languages_and_voices_speak(spoken: list[Utterance]) -> None:
    assert {clip.speaker.language for clip in spoken} == set(LEXICONS)
    assert {clip.speaker.name for clip in spoken} == {who.name for who in SPEAKERS}


def test_names_are_unique_and_styles_are_known(spoken: list[Utterance]) -> None:
    assert len({clip.name for clip in spoken}) == len(spoken)
    manners = {clip.style.split(", ")[0] for clip in spoken}
    assert manners == {"neutral", "slow", "fast", "lively"}
    assert 0.05 < np.mean(["small room" in clip.style for clip in spoken]) < 0.4


def test_clips_are_audible_and_not_clipped(spoken: list[Utterance]) -> None:
    for clip in spoken:
        assert np.isfinite(clip.wave).all()
        assert 0.08 < np.abs(clip.wave).max() < 0.95, clip.name
        assert 0.35 < len(clip.wave) / clip.sample_rate < 12


def test_fast_speech_is_faster_than_slow(spoken: list[Utterance]) -> None:
    def rate(manner: str) -> float:
        chosen = [c for c in spoken if c.style.startswith(manner) and c.kind == "statement"]
        return float(np.median([len(c.transcript) * c.sample_rate / len(c.wave) for c in chosen]))

    assert rate("fast") > 1.2 * rate("slow")  # silence around the words dilutes it


def test_women_speak_higher_than_men(spoken: list[Utterance]) -> None:
    pitches: dict[str, list[float]] = {"female": [], "male": []}
    for clip in spoken:
        if clip.kind == "statement":
            pitches[clip.speaker.sex].append(_pitch_hz(clip.wave, clip.sample_rate))
    assert min(pitches["female"]) > max(pitches["male"])


def _pitch_hz(wave: np.ndarray, rate: int) -> float:
    found = []
    for start in range(0, len(wave) - 1024, 1024):
        spectrum = np.fft.rfft(wave[start : start + 1024] * np.hanning(1024), 4096)
        correlation = np.fft.irfft(np.abs(spectrum) ** 2)[:512]
        lag = rate // 400 + int(correlation[rate // 400 : rate // 65].argmax())
        if correlation[lag] > 0.5 * correlation[0] and correlation[0] > 0.1:
            found.append(rate / lag)
    return float(np.median(found))


def test_without_speech_there_is_nothing() -> None:
    settings = StarterSettings(minutes=1, speech_share=0, sound_share=0.5, music_share=0.5)
    assert list(utterances(settings)) == []
