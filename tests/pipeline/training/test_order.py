from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import SettingsError
from pipeline.training.order import Group, StreamOrder, mixed_seed, permuted


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
        name: [Group("", np.arange(begin, end))]
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


def _weighted(**weights: float) -> StreamOrder:
    """Ten clips of a, from 0, and twenty of b, from 10."""
    rows = {"a": np.arange(10), "b": np.arange(10, 30)}
    groups = [Group(name, rows[name], weights.get(name, 1.0)) for name in rows]
    return StreamOrder({"sound": groups}, None, 3)


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (4.0, 1.0), (0.1, 1.0), (1.0, 0.003)])
def test_groups_come_as_often_as_their_weights_say_and_their_clips_in_turn(a, b):
    order = _weighted(a=a, b=b)
    rows = [order.at(position).row for position in range(1500)]
    counts = np.bincount(rows, minlength=30)
    wanted = 1500 * 10 * a / (10 * a + 20 * b)
    # Whole epochs are exact within a clip a group; the last one is up to its length off.
    assert abs(counts[:10].sum() - wanted) <= 31
    assert np.ptp(counts[:10]) <= 2
    assert np.ptp(counts[10:]) <= 2


def test_any_position_of_a_weighted_stream_is_found_without_those_before_it():
    order, again = _weighted(a=2.7, b=0.4), _weighted(a=2.7, b=0.4)
    rows = [order.at(position) for position in range(400)]
    assert rows[::-1] == [again.at(position) for position in reversed(range(400))]
    epochs = [place.epoch for place in rows]
    assert epochs == sorted(epochs)
    assert set(epochs) == set(range(max(epochs) + 1))


def test_a_group_of_weight_zero_never_comes_and_one_group_alone_needs_no_weight():
    order = _weighted(a=0.0)
    assert {order.at(position).row for position in range(40)} == set(range(10, 30))
    heavy, plain = (
        StreamOrder({"sound": [Group("", np.arange(9), weight)]}, None, 0) for weight in (5.0, 1.0)
    )
    assert [heavy.at(place) for place in range(30)] == [plain.at(place) for place in range(30)]


def test_the_order_without_weights_is_that_of_earlier_runs():
    order = _order({"speech": 0.5, "sound": 0.3, "music": 0.2})
    found = [order.at(position).row for position in (0, 1, 2, 3, 4, 5, 2000, 123_456)]
    assert found == [1, 7, 14, 3, 5, 0, 4, 4], "runs must stay resumable"


def test_without_weights_shares_are_the_square_root_of_the_clips():
    order = _order(sizes=(100, 25, 0))
    assert order.shares == pytest.approx({"speech": 2 / 3, "sound": 1 / 3})


def test_modalities_without_clips_are_left_out_and_nothing_left_is_an_error():
    assert set(_order({"speech": 1, "music": 1}, sizes=(2, 2, 0)).shares) == {"speech"}
    with pytest.raises(ValueError, match="no clips to train on"):
        _order({"music": 1.0}, sizes=(2, 2, 0))


def test_a_weight_too_small_ever_to_come_is_refused_with_the_least_that_does():
    weights = {"speech": 2.0, "music": 1.0, "sound": 0.001}
    with pytest.raises(SettingsError, match=r"'sound': 0\.00033.* at least 1/1024 .* or 0"):
        _order(weights)
    assert set(_order(weights | {"sound": 0.0}).shares) == {"speech", "music"}
    assert set(_order(weights, sizes=(5, 0, 9)).shares) == {"speech", "music"}


@pytest.mark.parametrize("speech", [0.03, 0.2, 1 / 3, 0.5, 0.61, 0.998])
def test_the_least_share_comes_whatever_the_others(speech):
    least = 1 / 1024
    order = _order({"speech": speech, "music": 1 - speech - least, "sound": least})
    rows = [order.at(position).row for position in range(1024)]
    assert sum(5 <= row < 8 for row in rows) == 1
    assert order.unheard == {}


def test_a_share_too_small_to_be_drawn_is_reported(monkeypatch):
    monkeypatch.setattr("pipeline.training.order._PERIOD", 8)
    order = _order(sizes=(400, 1, 400))
    assert order.unheard == {"sound": pytest.approx(1 / 41)}
    assert order.shares["sound"] == order.unheard["sound"]


def test_seeds_of_different_parts_differ_and_are_stable():
    assert mixed_seed(1, "a") != mixed_seed(1, "b") != mixed_seed(11, "")
    assert mixed_seed(0, "epoch", "speech", 0) == 313736356509694987, "runs must stay resumable"
