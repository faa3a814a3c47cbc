"""Files appear whole or not at all; a directory is complete when card and marker agree."""

from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

from pipeline.errors import IncompleteError
from pipeline.storage import COMPLETE, Folder, iter_rows, read_tables, table_bytes


def test_write_and_read_below_a_local_path(tmp_path: Path) -> None:
    folder = Folder.at(tmp_path / "x")
    folder.write_bytes("a/b.bin", b"0123456789")
    assert folder.is_local
    assert folder.read_bytes("a/b.bin") == b"0123456789"
    assert folder.read_range("a/b.bin", 3, 4) == b"3456"
    assert folder.files(recursive=True) == ["a/b.bin"]
    assert folder.child("a").files(".bin") == ["b.bin"]
    folder.delete("a/b.bin")
    folder.delete("a/b.bin")
    assert not folder.exists("a/b.bin")


def test_the_same_calls_reach_another_file_system() -> None:
    folder = Folder.at("memory://bucket/run")
    folder.write_json("c.json", {"b": 1, "a": [1, None]})
    assert fsspec.filesystem("memory").cat("/bucket/run/c.json").startswith(b'{\n "a"')
    assert folder.read_json("c.json") == {"a": [1, None], "b": 1}
    folder.finish({"x": 1})
    assert folder.card() == {"x": 1}


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="nosuch://x"):
        Folder.at("nosuch://x")


def test_a_failed_write_leaves_the_former_file_and_sweep_takes_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder.at(tmp_path)
    folder.write_bytes("a.bin", b"former")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("pipeline.storage.os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        folder.write_bytes("a.bin", b"later")
    assert folder.read_bytes("a.bin") == b"former"
    assert folder.files() == ["a.bin"]
    assert folder.sweep() == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_a_directory_is_complete_only_while_card_and_marker_agree(tmp_path: Path) -> None:
    folder = Folder.at(tmp_path / "d")
    with pytest.raises(IncompleteError, match="does not exist"):
        folder.card()
    folder.write_json("dataset.json", {"a": 1})
    with pytest.raises(IncompleteError, match="is not complete"):
        folder.card()
    folder.finish({"a": 2})
    assert folder.card() == {"a": 2}
    folder.write_json("dataset.json", {"a": 3})
    assert not folder.is_complete
    folder.finish({"a": 3})
    folder.finish({"stage": "encode"})
    assert folder.card("encode") == {"stage": "encode"}
    with pytest.raises(IncompleteError, match="output of `encode`; give a directory that `shard`"):
        folder.card("shard")
    folder.reopen()
    assert not folder.exists(COMPLETE)


def test_broken_json_is_incomplete_not_a_traceback(tmp_path: Path) -> None:
    folder = Folder.at(tmp_path)
    folder.write_bytes("x.json", b'{"a": ')
    with pytest.raises(IncompleteError, match=r"x\.json is not valid JSON"):
        folder.read_json("x.json")


def test_nan_never_enters_a_card(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        Folder.at(tmp_path).write_json("x.json", {"a": float("nan")})


def test_tables_are_the_same_bytes_and_read_back(tmp_path: Path) -> None:
    table = pa.table({"a": list(range(3000))})
    assert table_bytes(table) == table_bytes(pa.table({"a": list(range(3000))}))
    folder = Folder.at(tmp_path)
    for name in ("p0.parquet", "p1.parquet"):
        folder.write_bytes(name, table_bytes(table))
    rows = list(iter_rows(read_tables(folder, folder.files(".parquet"))))
    assert len(rows) == 6000
    assert rows[3001] == {"a": 1}
    with pytest.raises(IncompleteError, match="no Parquet"):
        read_tables(folder, [])
