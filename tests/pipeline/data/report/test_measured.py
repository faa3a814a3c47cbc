from __future__ import annotations

from pipeline.data.report.measured import measured_of
from pipeline.data.report.stages import find_stages
from pipeline.storage import Folder


def test_attributes_of_every_clip_are_shown_by_modality(prepared):
    stages = find_stages(Folder.at(prepared))
    measured = measured_of(stages["encode"], stages["ingest"], 100)
    assert (measured.clips, measured.of_clips) == (4, 4)
    shown = {histogram.name: histogram for histogram in measured.histograms}
    assert {name: int(c.sum()) for name, c in shown["level"].counts.items()} == {
        "music": 1, "sound": 2, "speech": 1
    }  # fmt: skip
    assert "duration" not in shown
    assert set(measured_of(stages["encode"], None, 100).histograms[0].counts) == {"clips"}


def test_many_clips_are_sampled_by_parts(prepared):
    stages = find_stages(Folder.at(prepared))
    measured = measured_of(stages["encode"], stages["ingest"], 2)
    assert 0 < measured.clips < measured.of_clips
