from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from pipeline.audio.files import read_audio
from pipeline.clip_tables import part_name
from pipeline.data.scan import ScanWorker
from pipeline.data.screening.checks import CheckSettings
from pipeline.data.segments import SegmentSettings
from pipeline.data.units.stage import Unit, UnitOutput
from tests.factories.corpora import RATE, write_tone

CUT = SegmentSettings(enabled=True, speech_s=2.0, sound_s=2.0, music_s=4.0, min_s=0.4)


def scan(*clips, segments=CUT, guard=lambda _item: True, attempt=1, **checks):
    unit = Unit("00000000", "", {"clips": list(clips), "rejects": []}, attempt, guard)
    output = ScanWorker(CheckSettings(**checks), segments).process(unit)
    assert output.read == output.written + len(output.rejects)
    return output


def rows(output: UnitOutput):
    return pq.read_table(io.BytesIO(output.files[part_name("00000000")])).to_pylist()


def clip(path: Path, **fields):
    known = {"clip_id": f"c/{path.stem}", "corpus": "c", "uri": str(path), "modality": "sound"}
    return known | fields


def write(path: Path, waveform) -> Path:
    soundfile.write(path, waveform, RATE, subtype="PCM_16")
    return path


@pytest.fixture
def recording(tmp_path) -> Path:
    """Seven seconds of noise, the third and fourth of them silent."""
    waveform = 0.1 * np.random.default_rng(0).standard_normal(7 * RATE)
    waveform[2 * RATE : 4 * RATE] = 0
    return write(tmp_path / "long.flac", waveform)


def test_digital_silence_at_the_ends_of_a_clip_is_cut_off(tmp_path):
    sound = 0.1 * np.random.default_rng(0).standard_normal(RATE)
    ends = np.zeros(RATE // 2 + 3), np.zeros(RATE)
    path = write(tmp_path / "padded.wav", np.concatenate([ends[0], sound, ends[1]]))
    (row,) = rows(scan(clip(path, declared_duration_s=2.5), segments=SegmentSettings()))
    assert row["notes"] == ["padding: 1.50 s of digital silence at the ends were cut off"]
    kept = read_audio(row["uri"], row["start_s"], row["end_s"]).waveform
    assert row["num_samples"] == kept.shape[1] == RATE
    np.testing.assert_allclose(kept[0], sound, atol=2**-15)
    (part,) = rows(scan(clip(path, start_s=0.25, end_s=2.0), segments=SegmentSettings()))
    assert (part["start_s"], part["end_s"]) == (row["start_s"], row["end_s"])
    assert part["fingerprint"] == row["fingerprint"]


def test_silence_where_a_recording_was_cut_goes_to_no_segment(recording):
    output = scan(clip(recording))
    spans = sorted((row["start_s"], row["end_s"]) for row in rows(output))
    assert all(end <= 2.0 or start >= 4.0 for start, end in spans)
    assert {refused.reason for refused in output.rejects} <= {"silent"}


def test_a_recording_becomes_segments_that_are_read_back_sample_by_sample(recording):
    output = scan(clip(recording), segments=CUT.model_copy(update={"max_padding_s": None}))
    kept = rows(output)
    whole = read_audio(str(recording)).waveform
    spans = [(row["start_s"], row["end_s"]) for row in kept]
    for row in kept:
        part = read_audio(row["uri"], row["start_s"], row["end_s"]).waveform
        first = round(row["start_s"] * RATE)
        assert np.array_equal(part, whole[:, first : first + row["num_samples"]])
        assert row["clip_id"] == f"c/long@{row['start_s']:.3f}-{row['end_s']:.3f}"
    lost = sum(row["num_samples"] for row in kept)
    for refused in output.rejects:
        start_s, _, end_s = refused.clip_id.partition("@")[2].partition("-")
        spans.append((float(start_s), float(end_s)))
        lost += round((float(end_s) - float(start_s)) * RATE)
    assert lost == 7 * RATE
    assert {refused.reason for refused in output.rejects} <= {"silent"}
    spans.sort()
    assert spans[0][0] == 0
    assert spans[-1][1] == 7.0
    assert all(one[1] == pytest.approx(other[0]) for one, other in pairwise(spans))
    segmented = {name: n for name, n in output.totals.items() if name.startswith("segmented/")}
    assert segmented == {
        "segmented/recordings": 1,
        "segmented/segments": len(kept) + len(output.rejects),
    }
    assert output.totals["clips/c"] == len(kept)


def test_a_bad_stretch_costs_its_segment_alone(tmp_path):
    waveform = 0.1 * np.random.default_rng(0).standard_normal(6 * RATE).astype(np.float32)
    waveform[3 * RATE] = np.nan
    path = tmp_path / "x.wav"
    soundfile.write(path, waveform, RATE, subtype="FLOAT")
    output = scan(clip(path))
    assert [refused.reason for refused in output.rejects] == ["non_finite"]
    assert len(rows(output)) >= 2


def test_a_recording_of_which_nothing_is_good_is_one_reject(tmp_path):
    output = scan(clip(write(tmp_path / "x.flac", np.zeros(9 * RATE))))
    (refused,) = output.rejects
    assert (refused.reason, refused.clip_id) == ("silent", "c/x")
    assert refused.detail.startswith("all 5 segments")
    assert output.totals == {"rejected/c": 1}


def test_a_transcript_is_never_cut(recording):
    spoken = clip(recording, modality="speech", transcript="so many words")
    (row,) = rows(scan(spoken))
    assert (row["clip_id"], row["start_s"]) == ("c/long", None)
    output = scan(spoken, segments=CUT.model_copy(update={"keep_transcribed": False}))
    assert [refused.reason for refused in output.rejects] == ["too_long"]
    assert "cannot be cut" in output.rejects[0].detail


def test_short_recordings_stay_whole(recording, tmp_path):
    short = write_tone(tmp_path / "short.wav", 1.9)
    (row,) = rows(scan(clip(short)))
    assert (row["clip_id"], row["start_s"]) == ("c/short", None)
    (row,) = rows(scan(clip(recording), segments=SegmentSettings()))
    assert row["clip_id"] == "c/long"


def test_a_span_is_cut_inside_itself(recording):
    output = scan(clip(recording, start_s=4.0, end_s=6.75))
    spans = [(row["start_s"], row["end_s"]) for row in rows(output)]
    assert (spans[0][0], spans[-1][1]) == (4.0, 6.75)
    assert len(spans) == 2


def test_a_recording_beyond_the_limit_is_one_reject(recording):
    output = scan(clip(recording), segments=CUT.model_copy(update={"max_recording_s": 5.0}))
    assert [refused.reason for refused in output.rejects] == ["too_long"]


def test_a_clip_that_killed_a_worker_is_a_reject(tmp_path):
    path = write_tone(tmp_path / "a.wav")
    output = scan(clip(path), guard=lambda item: item != "c/a", attempt=2)
    assert (output.read, output.written) == (1, 0)
    assert output.rejects[0].reason == "worker_died"
