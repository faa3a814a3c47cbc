from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.report.histograms import HEIGHT, WIDTH, histogram, histogram_of_counts, words_of


def test_every_value_is_counted_also_beyond_the_axis():
    values = np.concatenate([np.linspace(-40, -10, 500), [-300.0]])
    shown = histogram("level_dbfs", {"speech": values[:200], "music": values[200:]})
    assert shown.total == 501
    assert (shown.name, shown.unit, shown.is_log) == ("level", "dBFS", False)
    assert shown.edges[0] > -300, "one stray value does not squeeze the picture"
    assert shown.median == pytest.approx(-25, abs=0.2)


def test_wide_frequencies_get_a_logarithmic_axis_and_shares_do_not():
    values = np.geomspace(10, 10_000, 300)
    assert histogram("brightness_hz", {"a": values}).is_log
    assert not histogram("voiced_share", {"a": values / 10_000}).is_log


def test_bars_are_stacked_inside_the_drawing_and_the_tallest_fills_it():
    shown = histogram("tempo_bpm", {"a": np.full(3, 90.0), "b": np.full(1, 90.0)})
    bars = list(shown.bars())
    assert [bar.series for bar in bars] == ["a", "b"]
    low, high = bars
    assert low.height == 3 * high.height
    assert low.y + low.height == pytest.approx(HEIGHT)
    assert high.y == pytest.approx(0)
    assert high.y + high.height == pytest.approx(low.y)
    assert all(bar.x >= 0 and bar.x + bar.width <= WIDTH for bar in bars)
    assert "3 a" in low.tip


def test_counts_alone_give_percentiles_within_a_bin():
    edges = np.linspace(0, 10, 11)
    counts = np.array([0, 0, 1, 0, 9, 0, 0, 0, 1, 0])
    shown = histogram_of_counts("duration_s", edges, {"sound": counts}, is_log=False)
    assert shown.edges[[0, -1]].tolist() == [2, 9], "empty ends are cut"
    assert shown.median == 4.5
    assert shown.total == 11


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pitch_median_hz", ("pitch median", "Hz")),
        ("stereo_width", ("stereo width", "")),
        ("speaking_rate_syllables_per_s", ("speaking rate", "syllables per second")),
    ],
)
def test_units_are_read_from_the_name(name, words):
    assert words_of(name) == words


def test_keys_are_counted_by_name():
    shown = histogram("key_number", {"music": np.array([21.0, 21.0, 0.0])})
    assert (shown.name, shown.total, shown.most_frequent) == ("key", 3, "A minor")
    assert [bar.tip for bar in shown.bars()] == ["C major: 1 music", "A minor: 2 music"]
    assert shown.ticks[0][1] == "C major"
    assert shown.ticks[-1][1] == "B minor"
