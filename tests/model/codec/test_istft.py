from __future__ import annotations

import torch

from model.codec.istft import MAX_MAGNITUDE, SpectralHead, overlap_add


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
    frames = head(torch.full((1, 3, 4), 1e4))
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
    frames = head(torch.zeros(1, 20, 3))
    zeros = torch.zeros(1, 1, window_length - hop)
    summed, _ = overlap_add(frames, hop, zeros)
    steady = summed[0, 0, window_length:-window_length]
    spectrum = torch.fft.rfft(steady[: 3 * window_length]).abs()
    assert int(spectrum.argmax()) == 3 * bin_
    assert spectrum[3 * bin_] > 100 * spectrum.sort().values[-2]


def test_frames_go_on_from_where_the_stream_is() -> None:
    head = SpectralHead(3, 2, 24, 4)
    features = torch.randn(1, 9, 3)
    whole = head(features)
    later = head(features[:, 5:].expand(2, -1, -1), torch.tensor([5, 5 + 24 * 10**6]))
    torch.testing.assert_close(later[:1], whole[:, :, 5:])
    assert torch.equal(later[0], later[1])
