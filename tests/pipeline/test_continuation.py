"""A recording becomes a prompt without its silence, and what cannot be one is refused."""

from __future__ import annotations

import numpy as np
import pytest

from model.bundle.bundle import Bundle
from model.bundle.limits import RequestError
from pipeline.continuation import speech_prompt, spoken_recording
from tests.factories.bundle import random_bundle

RATE = 8000


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return random_bundle(tmp_path_factory.mktemp("bundle"))


def voiced(duration_s: float) -> np.ndarray:
    time_s = np.arange(round(duration_s * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * 150 * time_s))[None].astype(np.float32)


def silence(duration_s: float) -> np.ndarray:
    return np.zeros((1, round(duration_s * RATE)), np.float32)


def test_silence_around_the_speech_is_left_out(bundle: Bundle) -> None:
    waveform = np.concatenate([silence(0.7), voiced(1.4), silence(0.9)], axis=1)
    prompt = speech_prompt(spoken_recording(waveform, RATE, " one\ttwo "), bundle)
    assert prompt.transcript == "one two"
    # The margins add 0.08 s, and the last frame is filled up.
    assert len(prompt.latents) == bundle.codec.timebase.frames_in(1.48)
    assert prompt.latents.shape[1] == bundle.codec.latent_dim
    assert bool(prompt.latents.isfinite().all())


def test_a_stereo_recording_is_taken_as_the_codec_takes_it(bundle: Bundle) -> None:
    mono = voiced(1.2)
    stereo, plain = (
        speech_prompt(spoken_recording(waveform, RATE, "one"), bundle)
        for waveform in (np.repeat(mono, 2, axis=0), mono)
    )
    np.testing.assert_allclose(stereo.latents, plain.latents, atol=1e-5)


def test_what_travels_to_the_model_has_a_bounded_rate_and_two_channels_at_most() -> None:
    wave = np.repeat(np.tile(voiced(1.5), 24), 6, axis=0)
    recording = spoken_recording(wave, 192_000, "one")
    assert recording.sample_rate == 48_000
    assert recording.waveform.shape == (2, wave.shape[1] // 4)


@pytest.mark.parametrize(
    ("waveform", "transcript", "field", "message"),
    [
        (voiced(0.5), "one", "continue", r"holds 0.5. s of sound .* has 1 to 30 s"),
        (voiced(31.0), "one", "continue", r"holds 31.0. s of sound"),
        (silence(2.0), "one", "continue", "is silent"),
        (voiced(1.2)[:, :0], "one", "continue", "is silent"),
        (voiced(1.2), " ", "continue_transcript", "is empty"),
        (voiced(1.2), "...", "continue_transcript", "holds nothing to say"),
        (voiced(1.2), "a" * 1001, "continue_transcript", "at most 1000"),
    ],
)
def test_what_is_no_prompt_is_refused_by_field(
    waveform: np.ndarray, transcript: str, field: str, message: str
) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        spoken_recording(waveform, RATE, transcript)
    assert caught.value.field == field
