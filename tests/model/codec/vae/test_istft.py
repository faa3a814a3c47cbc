from __future__ import annotations

import math

import pytest
import torch

from model.codec.spectrum import QUIETEST, window_energy
from model.codec.vae.istft import MAX_MAGNITUDE, HeadSpectrum, SpectralHead, overlap_add


def test_frames_overlap_to_what_torch_istft_gives() -> None:
    window_length, hop = 40, 10
    spectrum = torch.randn(1, window_length // 2 + 1, 9, dtype=torch.complex64)
    window = torch.hann_window(window_length)
    expected = torch.istft(spectrum, window_length, hop, window=window, center=True)
    frames = torch.fft.irfft(spectrum.mT, n=window_length)[:, None] * window
    squares = window.square().expand(1, 1, 9, window_length)
    zeros = torch.zeros(1, 1, window_length - hop)
    summed = torch.cat(overlap_add(frames, hop, zeros), dim=-1)
    envelope = torch.cat(overlap_add(squares, hop, zeros), dim=-1)
    half = window_length // 2
    found = (summed / envelope)[0, 0, half : half + expected.shape[-1]]
    torch.testing.assert_close(found, expected[0], atol=1e-5, rtol=1e-5)


def test_overlap_add_in_pieces_equals_the_whole() -> None:
    frames = torch.randn(2, 1, 7, 12)
    zeros = torch.zeros(2, 1, 8)
    whole = torch.cat(overlap_add(frames, 4, zeros), dim=-1)
    tail, pieces = zeros, []
    for piece in frames.split([1, 3, 0, 3], dim=2):
        out, tail = overlap_add(piece, 4, tail)
        pieces.append(out)
    torch.testing.assert_close(torch.cat([*pieces, tail], dim=-1), whole, atol=1e-6, rtol=1e-5)


def test_huge_magnitudes_stay_finite() -> None:
    head = SpectralHead(4, 1, 16, 4)
    frames, _ = head.frames(head.predict(torch.full((1, 3, 4), 1e4)))
    assert frames.isfinite().all()
    assert frames.abs().max() <= MAX_MAGNITUDE


def test_constant_features_are_a_steady_tone() -> None:
    window_length, hop, bin_ = 64, 16, 5
    head = SpectralHead(3, 1, window_length, hop)
    with torch.no_grad():
        head.project.weight.zero_()
        head.project.bias.fill_(-20.0)
        head.project.bias[bin_] = 0.0
        head.project.bias[head.num_bins :] = 0.0
    frames, _ = head.frames(head.predict(torch.zeros(1, 20, 3)))
    zeros = torch.zeros(1, 1, window_length - hop)
    summed, _ = overlap_add(frames, hop, zeros)
    steady = summed[0, 0, window_length:-window_length]
    spectrum = torch.fft.rfft(steady[: 3 * window_length]).abs()
    assert int(spectrum.argmax()) == 3 * bin_
    assert spectrum[3 * bin_] > 100 * spectrum.sort().values[-2]


def test_frames_go_on_from_where_the_stream_is() -> None:
    head = SpectralHead(3, 2, 24, 4)
    features = torch.randn(1, 9, 3)
    whole, _ = head.frames(head.predict(features))
    predicted = head.predict(features[:, 5:].expand(2, -1, -1))
    later, _ = head.frames(predicted, torch.tensor([5, 5 + 24 * 10**6]))
    torch.testing.assert_close(later[:1], whole[:, :, 5:])
    assert torch.equal(later[0], later[1])


def sound(frames: torch.Tensor, head: SpectralHead) -> torch.Tensor:
    """Waveform of frames, `batch channels samples`, trimmed as the decoder does."""
    batch, channels, length, window = frames.shape
    squares = head.window.square().expand(batch, 1, length, window)
    overlap = window - head.hop_length
    zeros = torch.zeros(batch, channels + 1, overlap)
    joined = torch.cat(overlap_add(torch.cat([frames, squares], 1), head.hop_length, zeros), -1)
    waveform = joined[:, :-1] / joined[:, -1:].clamp(min=1e-8)
    return waveform[..., overlap // 2 : waveform.shape[-1] - overlap // 2]


def chord(num_samples: int) -> torch.Tensor:
    """Two tones between the bins of a 64-sample window."""
    sample = torch.arange(num_samples)
    return (0.3 * (0.61 * sample).sin() + 0.2 * (1.47 * sample).cos())[None, None]


def test_analysis_and_synthesis_give_the_waveform_back() -> None:
    head = SpectralHead(3, 2, 64, 16)
    waveform = torch.cat([chord(320), torch.randn(1, 1, 320)], dim=1)
    spectrum = head.analyse(waveform)
    assert spectrum.shape == (1, 2, 320 // 16, 33)
    frames = torch.fft.irfft(spectrum, n=64) * head.window
    torch.testing.assert_close(sound(frames, head), waveform, atol=1e-5, rtol=1e-5)


def test_magnitudes_alone_resynthesise_tones_between_bins() -> None:
    head = SpectralHead(3, 1, 64, 16, is_propagated=True)
    waveform = chord(1600)
    logs = head.analyse(waveform).abs().clamp(min=1e-6).log()
    frames, _ = head.frames(HeadSpectrum(logs, None))
    # The phase at the begin is free: the spectrum of a long stretch tells pitches and levels.
    heard, meant = (
        torch.fft.rfft(part[0, 0, 300:1500] * torch.hann_window(1200)).abs()
        for part in (sound(frames, head), waveform)
    )
    for tone in (0.61, 1.47):
        place = round(tone / (2 * math.pi) * 1200)
        ours, theirs = heard[place - 3 : place + 4], meant[place - 3 : place + 4]
        assert abs(int(ours.argmax()) - int(theirs.argmax())) <= 1
        assert float(ours.norm()) == pytest.approx(float(theirs.norm()), rel=0.05)
    phases = torch.rand_like(logs) * 2 * math.pi
    noisy, _ = head.frames(HeadSpectrum(logs, phases))
    rest = torch.fft.rfft(sound(noisy, head)[0, 0, 300:1500] * torch.hann_window(1200)).abs()
    assert float(rest[:100].max()) < 0.7 * float(heard.max())


def test_smooth_spectra_sound_as_steady_noise_of_their_level() -> None:
    head = SpectralHead(3, 1, 64, 16, is_propagated=True)
    meant = torch.randn(1, 1, 16_000)
    level = head.analyse(meant).abs().log().mean(dim=2, keepdim=True).expand(-1, -1, 1000, -1)
    heard = sound(head.frames(HeadSpectrum(level, None))[0], head)
    # magnitudes are medians, and fluctuate less than those of noise do: some of the power is lost
    assert 0.7 < float(heard.std() / meant.std()) < 1.05
    powers = heard[0, 0].unfold(0, 200, 200).square().mean(dim=-1)
    assert float(powers.std() / powers.mean()) < 0.3
    flat = torch.fft.rfft(heard[0, 0]).abs().square()[:8000].unfold(0, 800, 800).mean(dim=-1)
    assert float(flat.max() / flat.min()) < 1.5


def test_frames_below_the_quietest_level_are_silent() -> None:
    head = SpectralHead(3, 1, 64, 16, is_propagated=True)
    logs = torch.full((1, 1, 4, 33), math.log(1.5 * QUIETEST * window_energy(head.window_length)))
    logs[:, :, 2:] += 3
    frames, _ = head.frames(HeadSpectrum(logs, None))
    assert float(frames[:, :, :2].abs().max()) < 1e-7
    assert float(frames[:, :, 2:].abs().max()) > 1e-5


def test_a_gradient_reaches_the_magnitudes_of_a_propagated_head() -> None:
    head = SpectralHead(3, 1, 32, 8, is_propagated=True)
    features = torch.randn(1, 6, 3)
    frames, _ = head.frames(head.predict(features))
    (frames * torch.randn_like(frames)).sum().backward()
    gradients = head.project.weight.grad
    assert gradients is not None
    assert bool(gradients.any())


def test_phases_go_on_from_piece_to_piece() -> None:
    head = SpectralHead(3, 2, 24, 4, is_propagated=True)
    features = torch.randn(1, 9, 3)
    whole, last = head.frames(head.predict(features))
    first, state = head.frames(head.predict(features[:, :4]))
    second, end = head.frames(head.predict(features[:, 4:]), torch.tensor([4]), state)
    torch.testing.assert_close(torch.cat([first, second], dim=2), whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(end, last, atol=1e-4, rtol=1e-4)
