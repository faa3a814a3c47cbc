from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pipeline.data.fingerprints import to_bytes
from pipeline.data.refusals import EvaluationSet, RefusalSettings, find_refusals
from pipeline.data.scan import part_name
from pipeline.data.schema import CLIPS
from pipeline.storage import Folder, table_bytes

WORDS = to_bytes(np.random.default_rng(0).integers(1, 2**32, 100, dtype=np.uint32))


def clip(clip_id, **fields):
    known = {
        "clip_id": clip_id,
        "corpus": "c",
        "uri": f"{clip_id}.wav",
        "modality": "speech",
        "captions": [],
        "tags": [],
        "notes": [],
        "duration_s": 4.0,
        "sample_rate": 16_000,
        "num_channels": 1,
        "content_sha256": f"bytes of {clip_id}",
        "fingerprint": f"samples of {clip_id}",
        "acoustic": b"",
    }
    return known | fields


def folder_of(path, **units):
    folder = Folder.at(path)
    for unit, clips in units.items():
        folder.write_bytes(part_name(unit), table_bytes(pa.Table.from_pylist(clips, CLIPS)))
    return folder


def refusals(tmp_path, *, held=(), **units):
    scan = folder_of(tmp_path / "scan", **units)
    sets = []
    if held:
        sets = [EvaluationSet("bench", folder_of(tmp_path / "bench", x=list(held)), ["x"], "")]
    found = find_refusals(scan, sorted(units), sets, RefusalSettings())
    return {
        unit: {clip_id: str(reason) for clip_id, (reason, _) in of.items()}
        for unit, of in found.items()
    }


def test_the_best_of_several_clips_of_one_recording_is_kept_across_units(tmp_path):
    found = refusals(
        tmp_path,
        a=[clip("c/bare", acoustic=WORDS), clip("c/other")],
        b=[clip("c/spoken", acoustic=WORDS, transcript="hello", duration_s=4.1)],
    )
    assert found == {"a": {"c/bare": "duplicate_audio"}}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"fingerprint": "f"}, {"fingerprint": "f"}),
        ({"acoustic": WORDS}, {"acoustic": WORDS, "duration_s": 4.05}),
        (
            {"content_sha256": "s", "start_s": 3.0, "end_s": 7.0},
            {"content_sha256": "s", "start_s": 6.0, "end_s": 9.0, "duration_s": 3.0},
        ),
        (
            {"speaker": "mine/1688", "transcript": "There's iron, they say, in blood."},
            {"speaker": "bench/1688", "transcript": "THERE S IRON THEY SAY IN BLOOD"},
        ),
    ],
    ids=["samples", "sound", "file", "words"],
)
def test_what_an_evaluation_set_holds_leaks(tmp_path, ours, theirs):
    found = refusals(tmp_path, held=[clip("b/1", **theirs)], a=[clip("c/1", **ours), clip("c/2")])
    assert found == {"a": {"c/1": "evaluation_leak"}}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            {"content_sha256": "s", "start_s": 3.0, "end_s": 6.0, "duration_s": 3.0},
            {"content_sha256": "s", "start_s": 6.0, "end_s": 9.0, "duration_s": 3.0},
        ),
        (
            {"speaker": "mine/1", "transcript": "they say in blood"},
            {"speaker": "bench/2", "transcript": "they say in blood"},
        ),
        (
            {"transcript": "they say in blood"},
            {"transcript": "they say in blood"},
        ),
        (
            {"speaker": "mine/1", "transcript": "seven"},
            {"speaker": "bench/1", "transcript": "seven"},
        ),
    ],
    ids=["another part", "another speaker", "no speaker", "too few words"],
)
def test_what_only_resembles_it_does_not_leak(tmp_path, ours, theirs):
    assert refusals(tmp_path, held=[clip("b/1", **theirs)], a=[clip("c/1", **ours)]) == {}


def test_a_leak_is_not_also_a_duplicate(tmp_path):
    pair = [clip("c/1", fingerprint="f"), clip("c/2", fingerprint="f")]
    found = refusals(tmp_path, held=[clip("b/1", fingerprint="f")], a=pair)
    assert found == {"a": {"c/1": "evaluation_leak", "c/2": "evaluation_leak"}}
