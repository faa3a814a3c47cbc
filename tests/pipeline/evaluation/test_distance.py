"""Distances against values that can be worked out by hand."""

import math

import pytest
import torch

from pipeline.evaluation.distance import (
    at_level,
    bandwidth_hz,
    log_mel_l1,
    si_sdr_db,
    stft_distance,
    width_db,
)

RATE = 16_000


def noise(num_samples: int = RATE, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(1, num_samples, generator=generator)


def test_equal_signals_have_no_distance() -> None:
    clip = noise()
    assert log_mel_l1(clip, clip, RATE) == 0
    assert stft_distance(clip, clip) == 0


def test_twice_the_amplitude_is_a_log_mel_distance_of_log_two() -> None:
    clip = noise()
    # 1e-3: the floor under the logarithm touches a few quiet bins only.
    assert log_mel_l1(2 * clip, clip, RATE) == pytest.approx(math.log(2), abs=1e-3)
    assert stft_distance(2 * clip, clip) == pytest.approx(math.log(2), abs=1e-3)


def test_si_sdr_is_the_ratio_of_orthogonal_noise_and_blind_to_scale() -> None:
    time = torch.arange(RATE) / RATE
    clean = torch.sin(2 * math.pi * 100 * time)[None]
    disturbance = 0.1 * torch.sin(2 * math.pi * 300 * time)[None]
    assert si_sdr_db(clean + disturbance, clean) == pytest.approx(20.0, abs=1e-3)
    assert si_sdr_db(7 * (clean + disturbance), clean) == pytest.approx(20.0, abs=1e-3)


def test_at_level_sets_the_rms_and_leaves_silence_alone() -> None:
    assert at_level(noise(), -20.0).pow(2).mean().sqrt() == pytest.approx(0.1, rel=1e-5)
    assert at_level(torch.zeros(1, 10)).abs().max() == 0


def test_different_shapes_are_refused_with_both() -> None:
    with pytest.raises(ValueError, match=r"\(1, 5\) and reference \(1, 6\)"):
        log_mel_l1(torch.zeros(1, 5), torch.zeros(1, 6), RATE)


def test_a_silent_reference_has_no_si_sdr() -> None:
    with pytest.raises(ValueError, match="silent"):
        si_sdr_db(noise(), torch.zeros(1, RATE))


def test_too_short_for_any_window_is_refused() -> None:
    with pytest.raises(ValueError, match="fewer than the smallest window"):
        stft_distance(torch.zeros(1, 100), torch.zeros(1, 100))


def test_bandwidth_is_the_highest_frequency_that_stands_out() -> None:
    rate = 16_000
    noise = torch.randn(1, 4 * rate)
    spectrum = torch.fft.rfft(noise)
    spectrum[:, 3000 * 4 :] = 0
    low = torch.fft.irfft(spectrum)
    # a bin of 1024 samples is 16 Hz wide; at -60 dB a Hann window spreads over a few
    assert bandwidth_hz(low, rate) == pytest.approx(3000, abs=100)
    assert bandwidth_hz(noise, rate) == rate / 2


def test_width_is_side_over_mid() -> None:
    mid, side = torch.randn(2, 8000)
    wide = torch.stack([mid + 0.1 * side, mid - 0.1 * side])
    assert width_db(wide) == pytest.approx(-20, abs=0.3)
    with pytest.raises(ValueError, match="1 channels"):
        width_db(mid[None])
