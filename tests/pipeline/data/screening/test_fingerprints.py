from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from pipeline.audio.files import resample
from pipeline.data.screening.fingerprints import (
    MAX_WORDS,
    MIN_WORDS,
    Fingerprinter,
    error_rate,
    from_bytes,
    stride_of,
    to_bytes,
)

RATE = 16_000
SAME, OTHER = 0.2, 0.35


def scene(seed: int, duration_s: float = 4.0):
    """Notes and hisses that come and go: broad, and unlike any other seed."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(duration_s * RATE)) / RATE
    wave = 0.01 * generator.standard_normal(len(time))
    for _ in range(round(8 * duration_s)):
        begin, length_s = generator.uniform(0, duration_s), generator.uniform(0.05, 0.5)
        inside = (time >= begin) & (time < begin + length_s)
        tone = np.sin(2 * np.pi * generator.uniform(150, 3_500) * time[inside])
        wave[inside] += generator.uniform(0.02, 0.2) * tone
    return (wave / np.abs(wave).max() * 0.8)[None].astype(np.float32)


def words_of(waveform, sample_rate=RATE, block=5_000):
    printer = Fingerprinter(sample_rate)
    for start in range(0, waveform.shape[1], block):
        printer.add(waveform[:, start : start + block])
    return printer.result()


def coded(waveform, container, subtype, **how):
    sink = io.BytesIO()
    with soundfile.SoundFile(
        sink, "w", RATE, 1, format=container, subtype=subtype, **how
    ) as stream:
        for start in range(0, waveform.shape[1], 8_000):
            stream.write(waveform[0, start : start + 8_000])
    sink.seek(0)
    samples, _ = soundfile.read(sink, dtype="float32", always_2d=True)
    return samples.T


@pytest.mark.parametrize(
    "change",
    [
        lambda wave: coded(wave, "MP3", "MPEG_LAYER_III"),
        lambda wave: coded(wave, "OGG", "VORBIS"),
        lambda wave: coded(wave, "OGG", "OPUS"),
        lambda wave: 0.1 * wave,
        lambda wave: np.round(wave * 127) / 127,
        lambda wave: np.concatenate([wave, wave]),
        lambda wave: np.pad(wave, ((0, 0), (480, 0))),
    ],
    ids=["mp3", "vorbis", "opus", "gain", "8 bit", "stereo", "30 ms later"],
)
def test_the_same_recording_is_near(change):
    wave = scene(1)
    assert error_rate(words_of(wave), words_of(change(wave).astype(np.float32))) < SAME


def test_another_rate_is_the_same_recording():
    wave = scene(1)
    assert error_rate(words_of(wave), words_of(resample(wave, RATE, 44_100), 44_100)) < SAME


def test_other_recordings_are_far():
    words = [words_of(scene(seed)) for seed in range(6)]
    rates = [error_rate(one, other) for i, one in enumerate(words) for other in words[:i]]
    assert min(rates) > OTHER


def test_blocks_change_nothing():
    wave = scene(2)
    assert np.array_equal(words_of(wave), words_of(wave, block=777))


def test_long_clips_keep_few_words_and_stay_comparable():
    wave = scene(3, 20.0)
    words = words_of(wave)
    assert MAX_WORDS // 2 < len(words) <= MAX_WORDS
    assert stride_of(MAX_WORDS + 1) == 2
    assert error_rate(words, words_of(coded(wave, "OGG", "OPUS"))) < SAME


def test_silences_and_steady_tones_are_not_taken_for_one_another():
    time = np.arange(3 * RATE) / RATE
    tones = [0.5 * np.sin(2 * np.pi * pitch * time)[None] for pitch in (440, 500, 1_000)]
    words = [words_of(wave.astype(np.float32)) for wave in [*tones, 0 * tones[0], 0 * tones[0]]]
    rates = [error_rate(one, other) for i, one in enumerate(words) for other in words[:i]]
    assert min(rates) > OTHER


def test_short_clips_are_never_compared():
    words = words_of(scene(4, 1.0))
    assert len(words) < MIN_WORDS
    assert error_rate(words, words) == 1.0


def test_bytes_round_trip():
    words = words_of(scene(5))
    assert np.array_equal(from_bytes(to_bytes(words)), words)
    assert len(from_bytes(None)) == 0
