"""Spoken clips fill their time, say what is written, and sound like who speaks."""

from __future__ import annotations

import shutil
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.starter.engine import SpeechEngineError
from pipeline.data.starter.lexicon import LANGUAGES, grammar_of
from pipeline.data.starter.settings import SpeechSettings, StarterSettings
from pipeline.data.starter.speech import Utterance, plan_speech, utterances
from pipeline.data.starter.voices import SPEAKERS
from pipeline.errors import SettingsError

needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="Debian's package flite")
_ONLY_SPEECH = {"speech_share": 1.0, "sound_share": 0.0, "music_share": 0.0}


def _all(settings: StarterSettings) -> list[Utterance]:
    return [clip for part in plan_speech(settings) for clip in utterances(settings, part)]


def _settings(minutes: float, **speech: object) -> StarterSettings:
    return StarterSettings(
        minutes=minutes, seed=1, speech=SpeechSettings.model_validate(speech), **_ONLY_SPEECH
    )


@pytest.fixture(scope="module")
def spoken() -> list[Utterance]:
    return _all(StarterSettings(minutes=10.0, seed=1))


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "sentences.txt"
    numbers = grammar_of("en").numbers
    path.write_text("\n".join(f"Here is number {word}." for word in numbers), encoding="utf-8")
    return path


def _seconds(clips: list[Utterance]) -> float:
    return sum(len(clip.wave) / clip.sample_rate for clip in clips)


def test_the_time_is_met(spoken: list[Utterance]) -> None:
    assert _seconds(spoken) == pytest.approx(240, rel=0.01)


def test_kinds_have_their_shares_and_every_english_digit_is_spoken(
    spoken: list[Utterance],
) -> None:
    for kind, share in StarterSettings().speech.kinds.items():
        clips = [clip for clip in spoken if clip.kind == kind]
        assert _seconds(clips) / 240 == pytest.approx(share, abs=0.03), kind
    digits = [clip for clip in spoken if clip.kind == "digit"]
    english = Counter(clip.transcript for clip in digits if clip.speaker.language == "en")
    assert set(english) == set(grammar_of("en").digits)
    assert max(english.values()) <= min(english.values()) + 4


def test_languages_have_about_their_shares(spoken: list[Utterance]) -> None:
    english = [clip for clip in spoken if clip.speaker.language == "en"]
    assert _seconds(english) / 240 == pytest.approx(0.5, abs=0.1)


def test_all_languages_and_voices_speak(spoken: list[Utterance]) -> None:
    assert {clip.speaker.language for clip in spoken} == set(LANGUAGES)
    assert {clip.speaker.name for clip in spoken} == {
        who.name for who in SPEAKERS if who.engine == "espeak"
    }


def test_names_are_unique_and_styles_are_known(spoken: list[Utterance]) -> None:
    assert len({clip.name for clip in spoken}) == len(spoken)
    tags = Counter(tag for clip in spoken for tag in clip.style.split(", "))
    assert {"slow speech", "fast speech", "lively speech"} <= set(tags)
    assert 0.1 < tags["small room"] / len(spoken) < 0.3
    assert 0.03 < tags["background noise"] / len(spoken) < 0.2


def test_clips_are_audible_and_not_clipped(spoken: list[Utterance]) -> None:
    for clip in spoken:
        assert np.isfinite(clip.wave).all()
        assert 0.08 < np.abs(clip.wave).max() < 0.95, clip.name
        assert 0.35 < len(clip.wave) / clip.sample_rate < 12


def test_fast_speech_is_faster_than_slow(spoken: list[Utterance]) -> None:
    def rate(manner: str) -> float:
        chosen = [c for c in spoken if f"{manner} speech" in c.style and c.kind == "sentence"]
        return float(np.median([len(c.transcript) * c.sample_rate / len(c.wave) for c in chosen]))

    assert rate("fast") > 1.2 * rate("slow")  # silence around the words dilutes it


def test_women_speak_higher_than_men(spoken: list[Utterance]) -> None:
    pitches: dict[str, list[float]] = {"female": [], "male": []}
    for clip in spoken:
        if clip.kind == "sentence":
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


def test_noise_and_rooms_are_as_often_as_asked() -> None:
    settings = _settings(1.0, room_share=0, noise_share=1, kinds={"digit": 1})
    clips = _all(settings)
    assert all(clip.style.endswith("voice, background noise") for clip in clips)
    quiet = _all(settings.model_copy(update={"speech": SpeechSettings(noise_share=0)}))
    assert np.median([_floor(clip) for clip in clips]) > 3 * np.median([*map(_floor, quiet)])


def _floor(clip: Utterance) -> float:
    return float(np.std(clip.wave[clip.sample_rate // 100 : clip.sample_rate // 25]))


def test_languages_that_are_not_listed_are_not_spoken() -> None:
    clips = _all(_settings(0.5, languages={"de": 1, "fr": 0}))
    assert {clip.speaker.language for clip in clips} == {"de"}


def test_without_speech_there_is_nothing() -> None:
    settings = StarterSettings(minutes=1, speech_share=0, sound_share=0.5, music_share=0.5)
    assert plan_speech(settings) == []


@needs_flite
def test_flite_speaks_all_english_and_espeak_the_rest(sentences: Path) -> None:
    settings = _settings(
        0.7,
        engines={"flite": 1},
        languages={"en": 3, "de": 1},
        kinds={"word": 1, "open": 1},
        sentences=sentences,
    )
    clips = _all(settings)
    assert _seconds(clips) == pytest.approx(42, abs=2)
    for clip in clips:
        assert clip.speaker.engine == ("flite" if clip.speaker.language == "en" else "espeak")
        assert clip.sample_rate == (16_000 if clip.speaker.engine == "flite" else 22_050)
        assert clip.kind == "word" or clip.transcript.startswith("Here is number ")
    german = [clip for clip in clips if clip.speaker.language == "de"]
    assert {clip.kind for clip in german} == {"word"}
    assert _seconds(german) == pytest.approx(42 / 4, abs=2)


@needs_flite
def test_parts_of_flite_share_the_time_and_no_open_sentence(sentences: Path) -> None:
    settings = _settings(
        40.0,
        engines={"flite": 1},
        languages={"en": 1},
        kinds={"open": 1},
        sentences=sentences,
    )
    parts = plan_speech(settings)
    assert [part.count for part in parts] == [5] * 5
    assert sum(part.budget_s for part in parts) == pytest.approx(2400)
    said = [[clip.transcript for clip in islice(utterances(settings, part), 4)] for part in parts]
    assert len({text for texts in said for text in texts}) == 20
    again = [clip.transcript for clip in islice(utterances(settings, parts[3]), 4)]
    assert again == said[3]


def test_espeak_speaks_open_sentences_too(sentences: Path) -> None:
    clips = _all(_settings(0.5, kinds={"open": 1}, languages={"en": 1}, sentences=sentences))
    assert {clip.speaker.engine for clip in clips} == {"espeak"}
    assert len({clip.transcript for clip in clips}) == len(clips) > 5


def test_a_missing_engine_or_text_fails_before_anything_is_spoken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(SpeechEngineError, match="apt-get install flite"):
        plan_speech(_settings(1.0, engines={"espeak": 1, "flite": 1}))
    with pytest.raises(SettingsError, match=r"speech\.sentences .*gone\.txt"):
        plan_speech(
            _settings(1.0, kinds={"open": 1}, languages={"en": 1}, sentences=tmp_path / "gone.txt")
        )
