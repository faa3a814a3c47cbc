from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest

from pipeline.data.shards import clip_key, npy_bytes, read_npy, tar_bytes
from pipeline.errors import IncompleteError
from tests.factories.shards import read_webdataset


def test_places_point_at_the_payloads():
    members = {f"k{i}.mean.npy": bytes([i]) * (i * 700) for i in range(5)}
    tar, places = tar_bytes(members)
    for name, payload in members.items():
        offset, size = places[name]
        assert tar[offset : offset + size] == payload


def test_same_members_in_any_order_give_the_same_bytes():
    members = {"b.json": b"2", "a.json": b"1"}
    assert tar_bytes(members)[0] == tar_bytes(dict(reversed(members.items())))[0]


def test_tar_has_no_time_and_no_owner():
    tar, _ = tar_bytes({"a.json": b"1"})
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        (info,) = opened.getmembers()
    assert (info.mtime, info.uid, info.gid, info.uname, info.gname) == (0, 0, 0, "", "")


def test_webdataset_groups_the_members_of_a_key(tmp_path):
    array = np.arange(6, dtype=np.float16).reshape(3, 2)
    members = {}
    for clip_id in ("corpus/a.b c", "corpus/ü"):
        key = clip_key(clip_id)
        members |= {f"{key}.mean.npy": npy_bytes(array), f"{key}.json": b'{"x": 1}'}
    (tmp_path / "s.tar").write_bytes(tar_bytes(members)[0])
    samples = read_webdataset(tmp_path / "s.tar")
    assert {sample["__key__"] for sample in samples} == {
        clip_key("corpus/a.b c"),
        clip_key("corpus/ü"),
    }
    for sample in samples:
        assert sample["json"] == {"x": 1}
        np.testing.assert_array_equal(sample["mean.npy"], array)


def test_keys_are_distinct_and_stable():
    keys = {clip_key(f"corpus/{i}") for i in range(1000)}
    assert len(keys) == 1000
    assert clip_key("corpus/1") == clip_key("corpus/1")
    assert "." not in "".join(keys)


def test_arrays_round_trip():
    array = np.random.default_rng(0).standard_normal((7, 3)).astype(np.float16)
    np.testing.assert_array_equal(read_npy(npy_bytes(array.T), "x"), array.T)


@pytest.mark.parametrize("payload", [b"", b"not an array", npy_bytes(np.ones(9))[:-8]])
def test_damaged_array_is_named(payload):
    with pytest.raises(IncompleteError, match=r"train-1: k\.mean"):
        read_npy(payload, "train-1: k.mean")


def test_arrays_never_unpickle():
    sink = io.BytesIO()
    np.save(sink, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(IncompleteError):
        read_npy(sink.getvalue(), "x")
