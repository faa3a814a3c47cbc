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
    head = SpectralHead(4, 1, 16)
    frames = head(torch.full((1, 3, 4), 1e4))
    assert frames.isfinite().all()
    assert frames.abs().max() <= MAX_MAGNITUDE
