"""Files appear whole or not at all; a directory is complete when card and marker agree."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pyarrow as pa
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from tenacity import wait_none

from pipeline import faults
from pipeline.errors import IncompleteError, MachineError
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
    folder = Folder.at("memory://storage/run")
    folder.write_json("c.json", {"b": 1, "a": [1, None]})
    assert fsspec.filesystem("memory").cat("/storage/run/c.json").startswith(b'{\n "a"')
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
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]
    (tmp_path / ".aside-0123-a.bin").write_bytes(b"half of a killed writer")
    assert folder.files() == ["a.bin"]
    assert folder.sweep() == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


class _Cut(LocalFileSystem):
    """Local files whose second half never arrives."""

    protocol = "cut"

    def _open(self, path: str, mode: str = "rb", **given: Any) -> Any:
        opened = super()._open(path, mode, **given)
        if "w" in mode:
            write = opened.f.write

            def fail(payload: bytes) -> None:
                write(bytes(payload)[: len(payload) // 2])
                raise OSError("connection lost")

            opened.write = fail
        return opened


class _Reluctant(MemoryFileSystem):
    """Takes no `recursive`, and replaces no file: aloud, or without a word."""

    protocol = "reluctant"
    is_silent = False
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    def mv(self, old: str, new: str) -> None:
        if not self.exists(new):
            super().mv(old, new)
        elif not self.is_silent:
            raise OSError(errno.EEXIST, "there already", new)


def _remote(backend: fsspec.AbstractFileSystem, path: str) -> Folder:
    fsspec.register_implementation(backend.protocol, type(backend), clobber=True)
    folder = Folder.at(f"{backend.protocol}://{path}")
    assert folder.filesystem.handler.fs.protocol == backend.protocol
    return folder


def test_a_remote_write_that_fails_midway_leaves_nothing_under_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "BACKOFF", wait_none())
    folder = _remote(_Cut(), str(tmp_path / "far"))
    for former in (None, b"former"):
        if former:
            (tmp_path / "far/a.bin").write_bytes(former)
        with pytest.raises(MachineError, match="connection lost"):
            folder.write_bytes("a.bin", b"0123456789")
        assert folder.files() == (["a.bin"] if former else [])
    assert folder.read_bytes("a.bin") == b"former"
    assert [path.name for path in (tmp_path / "far").iterdir()] == ["a.bin"]


@pytest.mark.parametrize("is_silent", [False, True])
def test_a_file_is_replaced_where_the_server_will_not(
    is_silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Reluctant, "is_silent", is_silent)
    folder = _remote(_Reluctant(), f"bucket/{is_silent}")
    for contents in (b"first", b"second"):
        folder.write_bytes("x/a.bin", contents)
        assert folder.read_bytes("x/a.bin") == contents
        assert folder.child("x").files() == ["a.bin"]
    assert folder.sweep() == 0


def test_a_directory_is_complete_only_while_card_and_marker_agree(tmp_path: Path) -> None:
    folder = Folder.at(tmp_path / "d")
    with pytest.raises(IncompleteError, match="does not exist"):
        folder.card()
    folder.write_json("dataset.json", {"a": 1})
    with pytest.raises(IncompleteError, match="is not complete"):
        folder.card()
    with pytest.raises(IncompleteError, match="run `audiocalm encode`"):
        folder.card("encode")
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


class _Sick(LocalFileSystem):
    """Local files behind a connection of which every eleventh call breaks."""

    protocol = "sick"
    calls = 0

    def _break(self) -> None:
        type(self).calls += 1
        if self.calls % 11 == 0:
            raise OSError(errno.EIO, "Input/output error")

    def _open(self, path: str, mode: str = "rb", **rest: Any) -> Any:
        self._break()
        return super()._open(path, mode, **rest)

    def info(self, path: str, **rest: Any) -> Any:
        self._break()
        return super().info(path, **rest)

    def ls(self, path: str, detail: bool = False, **rest: Any) -> Any:
        self._break()
        return super().ls(path, detail, **rest)

    def mv(self, path1: str, path2: str, **rest: Any) -> None:
        self._break()
        super().mv(path1, path2, **rest)

    def rm_file(self, path: str) -> None:
        self._break()
        super().rm_file(path)


def test_every_operation_outlives_errors_that_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "BACKOFF", wait_none())
    folder = _remote(_Sick(), str(tmp_path / "sick"))
    names = [f"deep/{number}.bin" for number in range(5)]
    for name in names:
        folder.write_bytes(name, name.encode())
        assert folder.read_bytes(name) == name.encode()
        assert folder.read_range(name, 5, 3) == name.encode()[5:8]
    assert folder.files(recursive=True) == names
    assert folder.sizes(recursive=True) == dict.fromkeys(names, 10)
    for name in names:
        folder.delete(name)
        assert not folder.exists(name)
    assert folder.files(recursive=True) == []
    assert _Sick.calls > 50


@pytest.mark.parametrize("is_of_an_earlier_version", [False, True])
def test_files_are_listed_out_of_what_the_card_names(
    tmp_path: Path, is_of_an_earlier_version: bool
) -> None:
    folder = Folder.at(tmp_path)
    folder.write_bytes("parts/stray.parquet", b"of an abandoned attempt")
    names = ["parts/b.parquet", "parts/a.parquet", "parts/a.json", "rejects/a.parquet"]
    digests = {name: f"digest of {name}" for name in names}
    if is_of_an_earlier_version:
        folder.finish({"stage": "x", "files": digests})
    else:
        folder.finish({"stage": "x"}, digests.items())
    assert folder.listed("parts/", ".parquet") == ["parts/a.parquet", "parts/b.parquet"]
    assert list(folder.file_digests().items()) == sorted(digests.items())
    folder.reopen()
    with pytest.raises(IncompleteError):
        folder.listed("parts/")


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"PAR1")])
def test_a_lost_or_changed_list_of_files_is_an_error(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    folder = Folder.at(tmp_path)
    folder.finish({"stage": "x"}, [("parts/a.parquet", "0" * 64)])
    damage(tmp_path / "files.parquet")
    with pytest.raises(IncompleteError, match=r"files\.parquet is missing or not the list of"):
        folder.file_digests()


def test_a_card_that_names_no_files_is_an_error(tmp_path: Path) -> None:
    folder = Folder.at(tmp_path)
    folder.finish({"stage": "x"})
    with pytest.raises(IncompleteError, match="names no files; run the stage again"):
        folder.listed()
