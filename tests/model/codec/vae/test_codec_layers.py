from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from model.codec.vae.codec_layers import (
    CausalConv,
    CenteredConv,
    WindowedAttention,
    banded_attention,
    rotate_steps,
)


@pytest.mark.parametrize("length", [1, 5, 6, 17, 24])
@pytest.mark.parametrize("is_padded", [False, True])
def test_banded_attention_equals_a_dense_mask(length: int, is_padded: bool) -> None:
    query, key, value = torch.randn(3, 2, 2, length, 8)
    window = 5
    valid = torch.ones(2, length, dtype=torch.bool)
    if is_padded:
        valid[1, (length + 1) // 2 :] = False
    step = torch.arange(length)
    band = (step[:, None] - step).abs() <= window
    allowed = (band & valid[:, None]) | torch.eye(length, dtype=torch.bool)
    expected = F.scaled_dot_product_attention(query, key, value, allowed[:, None])
    found = banded_attention(query, key, value, window, valid if is_padded else None)
    # float32 sums in another order
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_rotation_depends_on_distance_only() -> None:
    query, key = torch.randn(2, 1, 1, 4, 8)
    scores = [rotate_steps(query, shift) @ rotate_steps(key, shift).mT for shift in (0, 100)]
    # cosines of angles near 100 carry float32 error
    torch.testing.assert_close(*scores, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(rotate_steps(query), query)


def test_causal_attention_sees_its_window_and_no_future() -> None:
    attention = WindowedAttention(8, 2, window=3)
    features = torch.randn(1, 9, 8, requires_grad=True)
    out, _ = attention.causal(features)
    (seen,) = torch.autograd.grad(out[0, 6].sum(), features)
    assert seen[0].abs().sum(dim=-1).nonzero().flatten().tolist() == [3, 4, 5, 6]


def test_attention_with_a_long_window_equals_torch_causal_attention() -> None:
    attention = WindowedAttention(8, 2, window=20)
    features = torch.randn(2, 7, 8)
    query, key, value = (
        part.reshape(2, 7, 2, 4).transpose(1, 2) for part in attention.qkv(features).chunk(3, -1)
    )
    mixed = F.scaled_dot_product_attention(
        rotate_steps(query), rotate_steps(key), value, is_causal=True
    )
    expected = attention.out(mixed.transpose(1, 2).reshape(2, 7, 8))
    found, _ = attention.causal(features)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (8, 4), (10, 5), (5, 5), (400, 80)])
def test_centered_convolution_divides_the_length_exactly(kernel: int, stride: int) -> None:
    conv = CenteredConv(2, 3, kernel, stride=stride)
    assert conv(torch.randn(1, 2, stride * 7)).shape == (1, 3, 7)


@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize("dilation", [1, 4])
def test_causal_convolution_in_pieces_equals_the_whole(dilation: int, trains: bool) -> None:
    conv = CausalConv(3, 3, dilation=dilation)
    features = torch.randn(2, 3, 20)
    whole = conv.conv(torch.nn.functional.pad(features, (conv.reach, 0)))
    state, pieces = torch.stack([conv.initial_state()] * 2), []
    with torch.set_grad_enabled(trains):
        for piece in features.split([1, 2, 0, 13, 4], dim=-1):
            if piece.shape[-1]:
                out, state = conv(piece, state)
                pieces.append(out)
    torch.testing.assert_close(torch.cat(pieces, dim=-1), whole, atol=1e-6, rtol=1e-5)
