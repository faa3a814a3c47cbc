from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.padding import PaddingFilter

RATE = 8000
SOUND = np.array([[0, 1, 0, 2], [0, 0, 0, 3]], dtype=np.float32)


def _passed(waveform, size: int, limit_s: float | None = 0.01):
    padding = PaddingFilter(RATE, limit_s)
    blocks = [waveform[:, at : at + size] for at in range(0, waveform.shape[1], size)]
    return padding, np.concatenate(list(padding.blocks(blocks)), axis=1)


def _padded(before: int, after: int):
    return np.pad(SOUND, ((0, 0), (before, after)))


@pytest.mark.parametrize("size", [1, 7, 100, 1000])
def test_the_size_of_blocks_changes_nothing(size):
    waveform = np.concatenate([_padded(200, 0), _padded(300, 90)], axis=1)
    padding, passed = _passed(waveform, size)
    assert (padding.before, padding.after) == (201, 90), "silence amid sound stays"
    np.testing.assert_array_equal(passed, waveform[:, 201:-90])


def test_short_silence_passes():
    padding, passed = _passed(_padded(78, 80), 50)
    assert padding.notes == ()
    np.testing.assert_array_equal(passed, _padded(78, 80))
    for limit_s in (None, 1.0):
        assert _passed(_padded(500, 600), 50, limit_s)[1].shape[1] == 1104


def test_what_16_bits_cannot_hold_is_silence_and_nan_is_not():
    waveform = np.full((1, 400), 2.0**-17, dtype=np.float32)
    waveform[0, 200] = 0.5
    assert _passed(waveform, 64)[1].shape[1] == 1
    waveform[0, 300] = np.nan
    assert np.isnan(_passed(waveform, 64)[1]).any()


def test_a_clip_of_silence_passes_whole():
    padding, passed = _passed(np.zeros((2, 500), dtype=np.float32), 64)
    assert padding.before == padding.after == 0
    assert passed.shape == (2, 500)
