"""Drift and duration against cases worked out by hand."""

import math

import pytest
import torch

from pipeline.evaluation.listening import Listening
from pipeline.evaluation.signal_metric import SignalMetric, drift, levels_dbfs
from tests.factories.evaluation import figures, findings_of, held_out_clip

RATE = 8000


def tone(pitch_hz: float, seconds: float = 1.0, amplitude: float = 0.1) -> torch.Tensor:
    time_s = torch.arange(round(seconds * RATE)) / RATE
    return amplitude * torch.sin(2 * math.pi * pitch_hz * time_s)[None]


def test_drift_is_the_change_between_the_first_and_the_last_third() -> None:
    found = drift(torch.cat([tone(500), tone(700), tone(1000, amplitude=0.2)], -1), RATE)
    assert found is not None
    assert found.level_db == pytest.approx(20 * math.log10(2), abs=0.01)
    assert found.brightness_octaves == pytest.approx(1.0, abs=0.01)


def test_short_and_half_silent_audio_has_no_drift() -> None:
    assert drift(tone(500, 2.9), RATE) is None
    assert drift(torch.cat([tone(500), torch.zeros(1, 2 * RATE)], -1), RATE) is None


def test_durations_are_compared_with_the_recordings() -> None:
    real = tone(500, 2.0)
    items = [
        Listening(held_out_clip(name, duration_s=2.0), RATE, real, real, tone(500, seconds))
        for name, seconds in (("a", 1.0), ("b", 2.5))
    ]
    items.append(Listening(held_out_clip("c", duration_s=2.0), RATE, real, real, None))
    found = figures(findings_of(SignalMetric(), items))
    assert found["duration relative to the recordings"]["generated"] == pytest.approx(3.5 / 4)
    assert found["duration error"]["generated"] == pytest.approx((0.5 + 0.25) / 2)
    assert found["codec: log-mel distance"]["reconstructed"] == 0
    assert "drift of the level, dB" not in found


def test_levels_are_those_of_half_seconds_and_end_at_silence() -> None:
    wave = torch.cat([tone(500, 0.5, 0.2), tone(500, 0.5, 0.02), torch.zeros(1, RATE // 2)], -1)
    loud = 20 * math.log10(0.2 / math.sqrt(2))
    assert levels_dbfs(wave, RATE) == pytest.approx([loud, loud - 20, -60], abs=1e-3)
    assert levels_dbfs(tone(500, 0.4), RATE) == []


def test_a_curve_ends_where_too_few_clips_last_so_long() -> None:
    items = []
    for number in range(6):
        real = tone(500, 2.0 if number < 5 else 1.0)
        made = tone(500, 1.0, 0.05) if number else None
        items.append(Listening(held_out_clip(f"c{number}"), RATE, real, real, made))
    curves = findings_of(SignalMetric(), items).curves["Level of speech against time"]
    assert [(time, clips) for time, _, clips in curves["real"]] == [
        (0.25, 6), (0.75, 6), (1.25, 5), (1.75, 5),
    ]  # fmt: skip
    assert [clips for _, _, clips in curves["generated"]] == [5, 5]
    difference = curves["real"][0][1] - curves["generated"][0][1]
    assert difference == pytest.approx(20 * math.log10(2), abs=1e-3)
