from __future__ import annotations

import pytest
import torch

from model.codec.mel import mel_filters, mel_frequencies


def test_frequencies_are_evenly_spaced_on_the_mel_scale() -> None:
    frequency = mel_frequencies(9, 16_000)
    mel = 2595 * torch.log10(1 + frequency / 700)
    torch.testing.assert_close(mel.diff(), mel.diff()[:1].expand(8))
    assert float(frequency[0]) == 0
    assert float(frequency[-1]) == pytest.approx(8000)


@pytest.mark.parametrize(("num_mels", "window"), [(80, 1024), (80, 64)])
def test_every_filter_sums_to_one_and_none_is_empty(num_mels: int, window: int) -> None:
    filters = mel_filters(num_mels, window, 16_000)
    torch.testing.assert_close(filters.sum(dim=1), torch.ones(num_mels))
    assert (filters >= 0).all()
    assert (filters.argmax(dim=1).diff() >= 0).all()
