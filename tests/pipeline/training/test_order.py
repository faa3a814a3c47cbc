from __future__ import annotations

import numpy as np
import pytest

from pipeline.training.order import StreamOrder, mixed_seed, permuted


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
def test_a_permutation_holds_every_index_once_and_depends_on_its_seed(size):
    orders = [[permuted(index, size, seed) for index in range(size)] for seed in (1, 2)]
    assert sorted(orders[0]) == list(range(size))
    assert sorted(orders[1]) == list(range(size))
    if size > 6:
        assert orders[0] != orders[1]
        assert orders[0] != list(range(size))


def test_a_permutation_has_no_visible_trend():
    size = 4096
    order = np.array([permuted(index, size, 5) for index in range(size)])
    correlation = np.corrcoef(order, np.arange(size))[0, 1]
    assert abs(correlation) < 0.06, "four standard deviations of an uncorrelated order"
    neighbours = np.corrcoef(order[1:], order[:-1])[0, 1]
    assert abs(neighbours) < 0.06


def test_a_permutation_of_a_hundred_million_needs_no_table():
    size = 100_000_000
    places = {permuted(index, size, 3) for index in range(2000)}
    assert len(places) == 2000
    assert max(places) > size // 2


def _order(weights=None, seed: int = 0, sizes=(5, 3, 9)) -> StreamOrder:
    names = ("speech", "sound", "music")
    starts = np.cumsum([0, *sizes])
    rows = {
        name: np.arange(begin, end)
        for name, begin, end in zip(names, starts[:-1], starts[1:], strict=True)
    }
    return StreamOrder(rows, weights, seed)


def test_every_epoch_of_a_modality_holds_each_clip_once():
    order = _order({"speech": 1.0})
    seen = [order.at(position) for position in range(15)]
    for epoch in range(3):
        assert sorted(item.row for item in seen if item.epoch == epoch) == [0, 1, 2, 3, 4]
    epochs = [[item.row for item in seen if item.epoch == epoch] for epoch in range(3)]
    assert len({tuple(rows) for rows in epochs}) > 1, "epochs are shuffled anew"


def test_any_stretch_holds_each_modality_within_two_of_its_share():
    order = _order({"speech": 0.6, "sound": 0.3, "music": 0.1})
    for start in (0, 17, 1000, 5000):
        rows = [order.at(position).row for position in range(start, start + 50)]
        counts = [sum(low <= row < high for row in rows) for low, high in ((0, 5), (5, 8), (8, 17))]
        assert np.abs(np.array(counts) - [30, 15, 5]).max() <= 2


def test_positions_beyond_a_period_continue_the_epoch_exactly():
    order = _order({"speech": 0.5, "sound": 0.3, "music": 0.2})
    rows = [order.at(position) for position in range(5000)]
    for low, high in ((0, 5), (5, 8), (8, 17)):
        found = [item for item in rows if low <= item.row < high]
        for start in range(0, len(found) - (high - low), high - low):
            stretch = found[start : start + high - low]
            assert {item.row for item in stretch} == set(range(low, high))
            assert {item.epoch for item in stretch} == {start // (high - low)}


def test_steps_are_consecutive_stretches_and_the_seed_matters():
    order = _order()
    together = [item.row for item in order.step(0, 12)]
    assert together == [item.row for step in range(3) for item in order.step(step, 4)]
    assert together != [item.row for item in _order(seed=1).step(0, 12)]
    assert together == [item.row for item in _order().step(0, 12)]


def test_without_weights_shares_are_the_square_root_of_the_clips():
    order = _order(sizes=(100, 25, 0))
    assert order.shares == pytest.approx({"speech": 2 / 3, "sound": 1 / 3})


def test_modalities_without_clips_are_left_out_and_nothing_left_is_an_error():
    assert set(_order({"speech": 1, "music": 1}, sizes=(2, 2, 0)).shares) == {"speech"}
    with pytest.raises(ValueError, match="no clips to train on"):
        _order({"music": 1.0}, sizes=(2, 2, 0))


def test_seeds_of_different_parts_differ_and_are_stable():
    assert mixed_seed(1, "a") != mixed_seed(1, "b") != mixed_seed(11, "")
    assert mixed_seed(0, "epoch", "speech", 0) == 313736356509694987, "runs must stay resumable"
