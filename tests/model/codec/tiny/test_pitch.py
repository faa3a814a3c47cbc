from __future__ import annotations

import math

import pytest
import torch

from model.codec.spectrum import log_magnitudes
from model.codec.tiny.pitch import Harmonics, Pitch, from_latents, to_latents

RATE, WINDOW, HOP, PER_FRAME = 16_000, 640, 160, 4


def harmonics() -> Harmonics:
    return Harmonics(RATE, WINDOW // 2 + 1, PER_FRAME)


def voice(pitch_hz: torch.Tensor) -> torch.Tensor:
    """Forty partials of a gliding pitch, one value a sample, with some noise."""
    angle = 2 * math.pi * (pitch_hz / RATE).cumsum(0)
    order = torch.arange(1, 41)[:, None]
    partials = (order * angle).cos() / order * (order * pitch_hz < RATE / 2)
    return 0.1 * partials.sum(0) + 1e-3 * torch.randn(len(pitch_hz))


def found_in(waveform: torch.Tensor) -> Pitch:
    logs = log_magnitudes(waveform[None, None], torch.hann_window(WINDOW), HOP)
    return harmonics().find(logs[:, 0])


@pytest.mark.parametrize("pitch_hz", [90.0, 110.0, 163.0, 240.0, 401.0])
def test_a_steady_pitch_is_found(pitch_hz: float) -> None:
    pitch = found_in(voice(torch.full((16_000,), pitch_hz)))
    inner = slice(2, -2)
    heard = harmonics().middle_hz * 2 ** pitch.octave[0, inner]
    assert float((heard / pitch_hz).log2().abs().max()) < 0.006
    assert float(pitch.slope[0, inner].abs().max()) < 0.02
    assert float(pitch.likeness[0, inner].min()) > 0.5


def test_a_glide_is_found_with_its_slope() -> None:
    seconds = torch.arange(16_000) / RATE
    pitch = found_in(voice(140 * 2 ** (0.8 * seconds)))
    frames = torch.arange(3, 22)
    expected = (140 / harmonics().middle_hz) * 2 ** (0.8 * (frames + 0.5) * 0.04)
    torch.testing.assert_close(pitch.octave[0, 3:22], expected.log2(), atol=0.03, rtol=0.0)
    assert float(pitch.slope[0, 3:22].mean()) == pytest.approx(0.8 * 0.04, abs=0.01)


def test_noise_and_silence_have_no_pitch() -> None:
    for waveform in (torch.randn(16_000), torch.zeros(16_000)):
        pitch = found_in(waveform)
        assert not pitch.octave.any()
        assert not pitch.slope.any()
        assert not harmonics().draw(pitch).any()


def test_a_comb_is_drawn_where_the_partials_are() -> None:
    comb = harmonics()
    waveform = voice(torch.full((16_000,), 200.0))
    drawn = comb.draw(found_in(waveform))[0, 40]
    peaks = [8 * order for order in range(1, 20)]  # 25 Hz a bin
    assert all(3 + int(drawn[peak - 3 : peak + 4].argmax()) in (5, 6, 7) for peak in peaks)
    assert float(drawn[8:160].mean().abs()) < 0.1
    assert float(drawn[8] - drawn[12]) == pytest.approx(-math.log(0.2), abs=0.05)


def test_latents_of_pitch_give_it_back() -> None:
    pitch = Pitch(torch.randn(2, 5), torch.randn(2, 5) / 20, torch.rand(2, 5))
    for found, meant in zip(from_latents(to_latents(pitch)), pitch, strict=True):
        torch.testing.assert_close(found, meant)


def test_a_latent_frame_is_found_by_itself() -> None:
    logs = torch.randn(1, 24, WINDOW // 2 + 1)
    whole = harmonics().find(logs)
    for index in range(6):
        alone = harmonics().find(logs[:, 4 * index : 4 * index + 4])
        for mine, theirs in zip(alone, whole, strict=True):
            torch.testing.assert_close(mine[0], theirs[0, index : index + 1])


def test_wild_latents_stay_finite() -> None:
    latents = torch.tensor([[[1e6, -1e6, 1e6], [1e30, 0.0, 5.0]]])
    assert bool(harmonics().draw(from_latents(latents)).isfinite().all())
