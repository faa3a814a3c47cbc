"""Rotary embedding: distance alone counts, and the folded form is the plain one."""

from __future__ import annotations

import torch
from torch import Tensor

from model.rotary import fold_gain, rotary_table, rotate, rotate_folded


def test_rotary_attention_depends_on_distance_alone() -> None:
    query, key = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)

    def score(query_at: int, key_at: int) -> Tensor:
        at_query = rotary_table(torch.tensor([[query_at]]), 16, 1e4)
        at_key = rotary_table(torch.tensor([[key_at]]), 16, 1e4)
        return (rotate(query, at_query) * rotate(key, at_key)).sum()

    torch.testing.assert_close(score(9, 4), score(25, 20), atol=1e-5, rtol=1e-5)
    assert (score(9, 4) - score(9, 5)).abs() > 1e-3


def test_folded_angles_rotate_heads_as_norm_gain_and_rotation_do() -> None:
    heads, gain = torch.randn(2, 3, 5, 16), torch.randn(3, 1, 16)
    table = rotary_table(torch.arange(10).view(2, 5), 16, 1e4)
    found = rotate_folded(heads, fold_gain(table, gain))
    torch.testing.assert_close(found, rotate(heads * gain, table))
