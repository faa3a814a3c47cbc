"""Every class sounds, says what it is, and measures like what it says."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.starter import dsp
from pipeline.data.starter.sounds.scene import CLASSES
from pipeline.data.starter.sounds.take import EVENT, Take, times_word


def _render(name: str, seed: int, duration_s: float = 4.0) -> Take:
    return CLASSES[name].render(np.random.default_rng([seed, len(name)]), duration_s)


def test_there_are_many_classes_with_names_of_their_own() -> None:
    assert len(CLASSES) >= 16
    assert len({item.keyword for item in CLASSES.values()}) == len(CLASSES)
    assert len({item.label for item in CLASSES.values()}) == len(CLASSES)
    assert all(name.replace("_", "").isalpha() for name in CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_sounds_and_its_clause_names_it(name: str) -> None:
    item = CLASSES[name]
    for seed, duration_s in ((0, item.min_s), (1, 4.0)):
        take = _render(name, seed, duration_s)
        assert len(take.wave) <= dsp.samples(duration_s)
        assert np.isfinite(take.wave).all()
        assert np.abs(take.wave).max() > 1e-3
        assert item.keyword in take.clause
        assert not take.clause[0].isupper()
        assert take.clause[-1].isalpha()
        if take.count is not None:
            assert item.kind == EVENT
            assert take.clause.endswith(times_word(take.count))


def _centroid_hz(wave: dsp.Wave) -> float:
    power = np.abs(np.fft.rfft(wave)) ** 2
    return float((power * np.fft.rfftfreq(len(wave), 1 / dsp.SAMPLE_RATE)).sum() / power.sum())


def test_classes_order_by_brightness_as_in_nature() -> None:
    centre = {
        name: np.median([_centroid_hz(_render(name, seed).wave) for seed in range(4)])
        for name in ("heartbeat", "thunder", "owl", "dog_bark", "bird_chirp", "crickets")
    }
    assert centre["heartbeat"] < centre["owl"] < centre["dog_bark"] < centre["bird_chirp"]
    assert centre["thunder"] < 250
    assert 3500 < centre["crickets"] < 6000
    assert 2000 < centre["bird_chirp"] < 6500


def _envelope(wave: dsp.Wave, rate_hz: int = 200) -> np.ndarray:
    size = dsp.SAMPLE_RATE // rate_hz
    return np.sqrt((wave[: len(wave) // size * size].reshape(-1, size) ** 2).mean(axis=1))


def _bursts(wave: dsp.Wave, gap_s: float = 0.1, threshold: float = 0.3) -> int:
    """Stretches above a share of the maximum, joined over gaps shorter than `gap_s`."""
    loud = np.flatnonzero(_envelope(wave) > threshold * _envelope(wave).max())
    return 1 + int(np.count_nonzero(np.diff(loud) > gap_s * 200))


@pytest.mark.parametrize(
    "name",
    ["dog_bark", "cat_meow", "frog", "owl", "car_horn", "telephone", "door_knock", "water_drops"],
)
def test_as_many_events_are_heard_as_the_clause_says(name: str) -> None:
    for seed in range(8):
        take = _render(name, seed, 5.0)
        assert _bursts(take.wave) == take.count, (seed, take.clause)


def test_bell_strokes_are_as_many_as_the_clause_says() -> None:
    for seed in range(8):
        take = _render("bell", seed, 5.0)
        rise = np.diff(_envelope(dsp.band(take.wave, 3000.0, None, 4), 50), prepend=0)
        strokes = np.flatnonzero(rise > 0.3 * rise.max())
        assert 1 + np.count_nonzero(np.diff(strokes) > 5) == take.count


def test_a_clock_ticks_at_its_pace() -> None:
    paces = {"slowly": 1.0, "steadily": 2.0, "fast": 4.0}
    for seed in range(6):
        take = _render("clock_tick", seed, 5.0)
        envelope = _envelope(take.wave)
        spectrum = np.fft.irfft(np.abs(np.fft.rfft(envelope - envelope.mean(), 4096)) ** 2)
        lag = 40 + int(spectrum[40:260].argmax())
        pace = paces[take.clause.rsplit(" ", 1)[1]]
        assert (200 / lag) * round(lag * pace / 200) == pytest.approx(pace, rel=0.05)


def test_a_siren_covers_its_range() -> None:
    take = next(t for seed in range(20) if "wails" in (t := _render("siren", seed, 6.0)).clause)
    pitches = []
    for start in range(0, len(take.wave) - 4096, 4096):
        spectrum = np.abs(np.fft.rfft(take.wave[start : start + 4096] * np.hanning(4096)))
        pitches.append(spectrum[:200].argmax() * dsp.SAMPLE_RATE / 4096)
    assert min(pitches) < 750
    assert max(pitches) > 1150


def test_rain_gets_denser_as_it_gets_heavier() -> None:
    spread = {}
    for seed in range(12):
        take = _render("rain", seed, 2.0)
        envelope = _envelope(take.wave, 1000)
        spread[take.clause.split()[0]] = envelope.std() / envelope.mean()
    assert spread["heavy"] < spread["steady"] < spread["light"]


def test_more_than_one_wave_rolls_in() -> None:
    for seed in range(6):
        wave = dsp.band(_render("sea_waves", seed, CLASSES["sea_waves"].min_s).wave, 900.0, None)
        level = np.convolve(_envelope(wave, 10), np.ones(5) / 5, "valid")
        inner = level[1:-1]
        crests = (inner > level[:-2]) & (inner >= level[2:]) & (inner > 0.5 * level.max())
        assert np.count_nonzero(crests) + (level[-1] > level[-2]) >= 2
