from __future__ import annotations

import numpy as np
import pytest

from pipeline.acoustics.attributes import measure, num_syllables, speaking_rate

RATE = 22_050
RNG = np.random.default_rng(0)


def seconds(duration_s: float, rate: int = RATE) -> np.ndarray:
    return np.arange(round(duration_s * rate)) / rate


def sine(frequency_hz: float, duration_s: float = 2.0, amplitude: float = 0.5) -> np.ndarray:
    time = seconds(duration_s)
    return (amplitude * np.sin(2 * np.pi * frequency_hz * time)).astype(np.float32)[None]


def noise(duration_s: float = 2.0, amplitude: float = 0.1, channels: int = 1) -> np.ndarray:
    shape = (channels, round(duration_s * RATE))
    return (amplitude * RNG.standard_normal(shape)).astype(np.float32)


def lowpassed(wave: np.ndarray, limit_hz: float) -> np.ndarray:
    spectrum = np.fft.rfft(wave)
    spectrum[:, np.fft.rfftfreq(wave.shape[1], 1 / RATE) > limit_hz] = 0
    return np.fft.irfft(spectrum, wave.shape[1]).astype(np.float32)


def clicks(bpm: float, duration_s: float = 12.0) -> np.ndarray:
    wave = np.zeros(round(duration_s * RATE), np.float32)
    for beat in range(int(duration_s * bpm / 60)):
        start = round(beat * 60 / bpm * RATE)
        burst = RNG.standard_normal(1000) * np.exp(-np.arange(1000) / 200)
        size = min(1000, len(wave) - start)
        wave[start : start + size] += 0.3 * burst[:size]
    return wave[None]


def test_levels_of_a_full_scale_sine_are_minus_three_and_zero_dbfs():
    values = measure(sine(440, amplitude=1.0), RATE, "music")
    assert values["level_dbfs"] == pytest.approx(-3.01, abs=0.02)
    assert values["peak_dbfs"] == pytest.approx(0.0, abs=0.02)
    assert values["duration_s"] == 2.0


def test_silence_has_duration_and_floor_only():
    values = measure(np.zeros((1, RATE), np.float32), RATE, "sound")
    assert values == {"duration_s": 1.0, "level_dbfs": -100.0, "peak_dbfs": -100.0}


@pytest.mark.parametrize("frequency_hz", [82.4, 220.0, 391.0])
def test_pitch_of_a_harmonic_tone(frequency_hz):
    wave = sum(sine(k * frequency_hz) / k for k in range(1, 6)) * 0.3
    values = measure(wave, RATE, "speech")
    assert values["pitch_median_hz"] == pytest.approx(frequency_hz, rel=0.005)
    assert values["voiced_share"] > 0.95
    assert values["pitch_range_semitones"] < 0.1


def test_pitch_range_of_a_glide_of_one_octave():
    time = seconds(4.0)
    frequency = 110 * 2 ** (time / 4)
    wave = 0.5 * np.sin(2 * np.pi * np.cumsum(frequency) / RATE)
    values = measure(wave.astype(np.float32)[None], RATE, "speech")
    # From the 10th to the 90th percentile of a uniform glide are 0.8 octaves.
    assert values["pitch_range_semitones"] == pytest.approx(9.6, abs=0.3)


def test_noise_has_no_pitch():
    values = measure(noise(), RATE, "sound")
    assert values["voiced_share"] < 0.05
    assert "pitch_median_hz" not in values


def test_brightness_of_white_noise_is_half_of_nyquist():
    assert measure(noise(), RATE, "sound")["brightness_hz"] == pytest.approx(RATE / 4, rel=0.02)


def test_brightness_follows_the_spectrum():
    dark = measure(lowpassed(noise(), 500), RATE, "sound")["brightness_hz"]
    bright = measure(noise(), RATE, "sound")["brightness_hz"]
    assert dark < 300 < bright


@pytest.mark.parametrize("limit_hz", [2000, 4000, 8000])
def test_bandwidth_of_lowpassed_noise(limit_hz):
    values = measure(lowpassed(noise(4.0), limit_hz), RATE, "speech")
    assert values["bandwidth_hz"] == pytest.approx(limit_hz, rel=0.08)


@pytest.mark.parametrize("snr_db", [10.0, 20.0, 30.0])
def test_snr_of_bursts_in_noise(snr_db):
    wave = noise(6.0, amplitude=0.01)
    tone_level = 0.01 * 10 ** (snr_db / 20) * np.sqrt(2)
    is_on = (seconds(6.0) % 1.0) < 0.6
    wave = wave + sine(300, 6.0, tone_level) * is_on
    values = measure(wave.astype(np.float32), RATE, "speech")
    assert values["snr_db"] == pytest.approx(snr_db, abs=1.5)
    assert values["noise_floor_dbfs"] == pytest.approx(-40, abs=1)


def test_pauses_are_counted_inside_speech_only():
    is_on = np.zeros(round(6 * RATE), bool)
    for start_s, end_s in ((0.5, 1.5), (2.0, 3.0), (3.05, 4.0), (5.0, 5.5)):
        is_on[round(start_s * RATE) : round(end_s * RATE)] = True
    wave = (sine(200, 6.0) * is_on + noise(6.0, 0.0005)).astype(np.float32)
    values = measure(wave, RATE, "speech")
    # Gaps of 0.5 and 1.0 s count; the edges and the gap of 50 ms do not.
    assert values["pause_count"] == 2
    assert values["pause_share"] == pytest.approx(1.5 / 5.0, abs=0.02)
    assert values["active_s"] == pytest.approx(3.45, abs=0.15)


@pytest.mark.parametrize("bpm", [60, 84, 100, 120, 140])
def test_tempo_of_clicks(bpm):
    values = measure(clicks(bpm), RATE, "music")
    assert values["tempo_bpm"] == pytest.approx(bpm, rel=0.02)
    assert values["beat_strength"] > 0.6


def test_noise_has_a_weak_beat_and_no_onsets():
    values = measure(noise(8.0), RATE, "music")
    assert values["beat_strength"] < 0.25
    assert values["onset_rate_hz"] < 0.3


def test_onsets_are_counted_per_second():
    values = measure(clicks(120), RATE, "sound")
    assert values["onset_rate_hz"] == pytest.approx(2.0, abs=0.2)


def test_speech_gets_no_tempo():
    assert "tempo_bpm" not in measure(clicks(120), RATE, "speech")


def test_fades_show_in_the_trend():
    fade = np.linspace(1, 0.01, 4 * RATE, dtype=np.float32)
    assert measure(noise(4.0) * fade, RATE, "sound")["level_trend_db"] < -6
    assert measure(noise(4.0) * fade[::-1], RATE, "sound")["level_trend_db"] > 6
    assert abs(measure(noise(4.0), RATE, "sound")["level_trend_db"]) < 0.5


def test_dynamic_range_of_two_levels():
    wave = noise(8.0)
    wave[:, : 4 * RATE] *= 0.1
    assert measure(wave, RATE, "music")["dynamic_range_db"] == pytest.approx(20, abs=1)


def test_stereo_width_from_mono_to_antiphase():
    left, right = noise(channels=2)
    widths = [
        measure(np.stack(pair), RATE, "music")["stereo_width"]
        for pair in ((left, left), (left, right), (left, -left))
    ]
    assert widths == pytest.approx([0.0, 0.5, 1.0], abs=0.03)
    assert "stereo_width" not in measure(left[None], RATE, "music")


def test_long_clips_are_measured_in_pieces_like_short_ones():
    short, long = (
        measure(clicks(100, 8.0), RATE, "music"),
        measure(clicks(100, 40.0), RATE, "music"),
    )
    assert long["tempo_bpm"] == pytest.approx(short["tempo_bpm"], rel=0.02)
    assert long["brightness_hz"] == pytest.approx(short["brightness_hz"], rel=0.1)


@pytest.mark.parametrize("num_samples", [1, 10, 500])
def test_tiny_clips_are_no_error(num_samples):
    wave = np.full((1, num_samples), 0.5, np.float32)
    assert measure(wave, RATE, "speech")["peak_dbfs"] == pytest.approx(-6.02, abs=0.01)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("seven", 2),
        ("the cat sat", 3),
        ("made", 1),
        ("Über", 2),
        ("你好世界", 4),
        ("さくら", 3),
        ("", 0),
        ("...", 0),
    ],
)
def test_syllables_by_spelling(text, count):
    assert num_syllables(text) == count


def test_cyrillic_words_have_syllables_too():
    assert 3 <= num_syllables("здравствуйте") <= 6


def test_speaking_rate_needs_words_and_time():
    assert speaking_rate("one two three four", 2.0) == pytest.approx(2.0)
    assert speaking_rate("", 2.0) is None
    assert speaking_rate("one", 0.0) is None


def test_music_has_a_key_and_everything_that_ends_a_decay():
    time = seconds(0.6)
    chords = [(0, 4, 7), (5, 9, 12), (7, 11, 14), (0, 4, 7)] * 2
    wave = np.concatenate(
        [
            sum(np.sin(2 * np.pi * 220 * 2 ** (s / 12) * time) for s in chord) * np.exp(-8 * time)
            for chord in chords
        ]
    ).astype(np.float32)[None]
    values = measure(0.2 * wave, RATE, "music")
    assert values["key_number"] == 9
    assert values["key_confidence"] > 0.15
    # exp(-8 t) falls by 60 dB in 6.91 / 8 seconds.
    assert values["decay_time_s"] == pytest.approx(0.86, rel=0.1)
    assert "key_number" not in measure(0.2 * wave, RATE, "sound")
