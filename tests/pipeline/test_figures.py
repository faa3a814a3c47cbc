"""Pictures are PNG files, the same bytes for the same input, and show what is there."""

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from pipeline.figures import (
    Interval,
    _spectrum_db,
    loudest_db,
    save_curves,
    save_intervals,
    save_spectrogram,
)

RATE = 16_000


def test_a_full_scale_tone_has_0_db() -> None:
    tone = np.sin(2 * np.pi * 2000 * np.arange(RATE) / RATE).astype(np.float32)
    assert loudest_db(tone) == pytest.approx(0, abs=0.01)
    assert loudest_db(tone[None] / 10) == pytest.approx(-20, abs=0.01)


def test_a_tone_stands_at_its_frequency() -> None:
    tone = np.sin(2 * np.pi * 2000 * np.arange(RATE) / RATE).astype(np.float32)
    levels, num_samples = _spectrum_db(tone)
    assert levels.mean(1).argmax() == 2000 * 1024 // RATE
    assert num_samples == RATE


def test_pictures_on_one_scale_show_which_is_louder(tmp_path: Path) -> None:
    loud = np.random.default_rng(0).normal(0, 0.1, RATE // 2).astype(np.float32)
    light = []
    for name, wave, top in (("a", loud, None), ("b", loud / 30, None), ("c", loud / 30, 0.0)):
        save_spectrogram(tmp_path / f"{name}.png", wave, RATE, loudest_db=top)
        light.append(matplotlib.image.imread(tmp_path / f"{name}.png")[..., :3].mean())
    assert light[0] == pytest.approx(light[1], rel=0.02)
    assert light[2] < 0.9 * light[0]


def test_the_same_waveform_gives_the_same_file(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(size=(2, RATE // 4)).astype(np.float32)
    for name in ("a.png", "b.png"):
        save_spectrogram(tmp_path / name, noise, RATE, "noise")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_silence_short_and_empty_clips(tmp_path: Path) -> None:
    save_spectrogram(tmp_path / "s.png", np.zeros((1, RATE // 10), np.float32), RATE)
    save_spectrogram(tmp_path / "t.png", np.ones((1, 5), np.float32), RATE)
    with pytest.raises(ValueError, match="empty"):
        save_spectrogram(tmp_path / "e.png", np.zeros((1, 0), np.float32), RATE)


def test_curves_skip_what_has_no_points(tmp_path: Path) -> None:
    save_curves(tmp_path / "c.png", {"a": [(0, 1.0), (1, 0.5)], "none": []}, is_log=True)
    assert (tmp_path / "c.png").stat().st_size > 1000


def test_intervals_stand_where_their_values_are(tmp_path: Path) -> None:
    for name, low in (("wide", 0.0), ("narrow", 0.69)):
        rows = {"row": {"real": Interval(0.7, low, 0.71)}, "other": {"real": Interval(0.5)}}
        save_intervals(tmp_path / f"{name}.png", rows, (0, 1))
    wide, narrow = (matplotlib.image.imread(tmp_path / f"{n}.png") for n in ("wide", "narrow"))
    blue = [(p[..., 2] - p[..., 0] > 0.3).sum() for p in (wide, narrow)]
    assert blue[0] > 1.5 * blue[1]
