from __future__ import annotations

import pytest

from pipeline.data.report.stages import find_stages
from pipeline.data.report.totals import totals_of
from pipeline.storage import Folder


def test_every_dimension_adds_up_to_the_card(prepared):
    stage = find_stages(Folder.at(prepared))["ingest"]
    totals = totals_of(stage)
    assert totals.clips == stage.card["written"] == 4
    assert totals.hours == pytest.approx(5.9 / 3600)
    for amounts in totals.tables.values():
        assert sum(amount.clips for amount in amounts) == 4
        assert sum(amount.hours for amount in amounts) == pytest.approx(totals.hours)
        assert sum(amount.share for amount in amounts) == pytest.approx(1)
    modalities = {amount.name: amount.clips for amount in totals.tables["modality"]}
    assert modalities == {"sound": 2, "music": 1, "speech": 1}
    assert totals.tables["modality"][0].name == "sound", "largest first"
    assert [amount.name for amount in totals.tables["licence"]] == ["not given"]


def test_durations_are_counted_by_modality_in_bins_that_hold_them(prepared):
    totals = totals_of(find_stages(Folder.at(prepared))["ingest"])
    shown = totals.durations
    assert shown is not None
    assert shown.total == 4
    assert {name: counts.sum() for name, counts in shown.counts.items()} == {
        "sound": 2, "music": 1, "speech": 1
    }  # fmt: skip
    assert shown.edges[0] <= 1.0
    assert shown.edges[-1] >= 2.0
    assert 1.0 <= shown.median <= 2.0
