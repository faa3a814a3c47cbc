from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pipeline.clip_tables import ClipTables, part_name
from pipeline.data.schema import CLIPS
from pipeline.data.screening.fingerprints import to_bytes
from pipeline.data.screening.refusals import EvaluationSet, RefusalSettings, find_removals
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


def in_words(tmp_path, *, held=(), keep_duplicates=False, **units):
    scan = folder_of(tmp_path / "scan", **units)
    sets = []
    if held:
        clips = ClipTables(folder_of(tmp_path / "bench", x=list(held)))
        sets = [EvaluationSet("bench", clips, ["x"], "")]
    settings = RefusalSettings(keep_duplicates=keep_duplicates)
    return find_removals(scan, sorted(units), sets, settings)


def refusals(tmp_path, **given):
    return {
        unit: {clip_id: str(removal.reason) for clip_id, removal in of.items()}
        for unit, of in in_words(tmp_path, **given).items()
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
def test_similar_clips_of_evaluation_sets_do_not_leak(tmp_path, ours, theirs):
    assert refusals(tmp_path, held=[clip("b/1", **theirs)], a=[clip("c/1", **ours)]) == {}


def test_a_leak_is_not_also_a_duplicate(tmp_path):
    pair = [clip("c/1", fingerprint="f"), clip("c/2", fingerprint="f")]
    found = refusals(tmp_path, held=[clip("b/1", fingerprint="f")], a=pair)
    assert found == {"a": {"c/1": "evaluation_leak", "c/2": "evaluation_leak"}}


LEAKING = {
    "words": {"speaker": "mine/1688", "transcript": "They say in blood"},
    "file": {"content_sha256": "s"},
}


@pytest.mark.parametrize("keep_duplicates", [False, True])
@pytest.mark.parametrize("by", LEAKING)
def test_a_copy_of_a_leak_leaks_whichever_of_them_is_better(tmp_path, by, keep_duplicates):
    leak = clip("c/leak", acoustic=WORDS, **LEAKING[by])
    better = clip("d/better", acoustic=WORDS, transcript="They say", tags=["calm"])
    worse = clip("d/worse", acoustic=WORDS)
    other = clip("d/other")
    found = in_words(
        tmp_path,
        held=[clip("b/1", **LEAKING[by])],
        a=[better, other],
        b=[leak, worse],
        keep_duplicates=keep_duplicates,
    )
    reasons = {clip_id: of.reason for unit in found.values() for clip_id, of in unit.items()}
    assert reasons == dict.fromkeys(("d/better", "c/leak", "d/worse"), "evaluation_leak")
    assert "evaluation set bench: b/1" in found["b"]["c/leak"].detail
    assert found["b"]["c/leak"].twin == "bench: b/1"
    for removal in (found["a"]["d/better"], found["b"]["d/worse"]):
        assert removal.detail.startswith("the same recording as c/leak, which leaks: ")
        assert "evaluation set bench: b/1" in removal.detail
        assert removal.twin == "c/leak"


@pytest.mark.parametrize("by", LEAKING)
def test_the_clip_that_a_duplicate_names_is_kept(tmp_path, by):
    twins = [clip(name, acoustic=WORDS, transcript="They say") for name in ("c/1", "c/2")]
    leaks = [clip("c/0", **LEAKING[by]), clip("c/3", fingerprint="f", **LEAKING[by])]
    copies = [clip("c/4", fingerprint="f"), clip("c/5", fingerprint="f")]
    found = in_words(tmp_path, held=[clip("b/1", **LEAKING[by])], a=[*twins, *leaks, *copies])
    assert set(found["a"]) == {"c/0", "c/2", "c/3", "c/4", "c/5"}
    twins = [r.twin for r in found["a"].values() if r.reason == "duplicate_audio"]
    assert twins == ["c/1"]
    assert found["a"]["c/2"].detail == "the same recording as c/1, which is kept"
