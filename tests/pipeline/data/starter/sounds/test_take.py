"""Events are counted and placed so that they fit."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.starter.sounds.take import onsets, pick_count, times_word


@pytest.mark.parametrize("duration_s", [0.2, 1.0, 3.0, 8.0])
def test_counts_fit_into_the_duration(duration_s: float) -> None:
    rng = np.random.default_rng(0)
    counts = [pick_count(rng, duration_s, 0.5, 0.3) for _ in range(50)]
    assert min(counts) >= 1
    assert max(counts) <= max(1, min(5, int((duration_s + 0.3) / 0.8)))


def test_onsets_keep_their_distance_and_end_in_time() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        starts = onsets(rng, 4.0, [0.5] * 4, 0.3)
        assert starts[0] >= 0
        assert np.diff(starts).min() >= 0.8 - 1e-9
        assert starts[-1] + 0.5 <= 4.0 + 1e-9


def test_counts_have_words() -> None:
    assert [times_word(count) for count in (1, 2, 3)] == ["once", "twice", "three times"]
