"""Facts of signals whose truth is known."""

import math

import pytest
import torch

from pipeline.evaluation.signal import examine

RATE = 16_000


def test_a_sine_has_the_level_of_a_sine() -> None:
    clip = 0.5 * torch.sin(2 * math.pi * 440 * torch.arange(RATE) / RATE)[None]
    facts = examine(clip, RATE)
    assert facts.duration_s == 1
    assert facts.peak_dbfs == pytest.approx(-6.02, abs=0.01)
    assert facts.level_dbfs == pytest.approx(-9.03, abs=0.01)
    assert facts.silent_share == 0
    assert facts.clipped_share == 0
    assert facts.is_finite


def test_half_silence_clipping_and_nan_are_counted() -> None:
    clip = torch.zeros(1, RATE)
    clip[:, : RATE // 2] = 1.0
    assert examine(clip, RATE).silent_share == pytest.approx(0.5)
    assert examine(clip, RATE).clipped_share == pytest.approx(0.5)
    clip[0, 3] = float("nan")
    assert not examine(clip, RATE).is_finite


def test_an_empty_waveform_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        examine(torch.zeros(1, 0), RATE)
