from __future__ import annotations

import pyarrow as pa
import pytest

from pipeline.clip_tables import ClipTables, part_name, removed_name
from pipeline.errors import IncompleteError
from pipeline.storage import Folder, sha256, table_bytes

UNITS = {"00000000": ["c/0", "c/1", "c/2"], "00000001": ["c/3"]}


def write(folder: Folder, tables: dict[str, pa.Table], card: dict) -> None:
    payloads = {name: table_bytes(table) for name, table in tables.items()}
    for name, payload in payloads.items():
        folder.write_bytes(name, payload)
    folder.finish(card, [(name, sha256(payload)) for name, payload in payloads.items()])


def parts() -> dict[str, pa.Table]:
    return {
        part_name(unit): pa.table({"clip_id": ids, "seconds": [float(i[2:]) for i in ids]})
        for unit, ids in UNITS.items()
    }


def clips(path, **removed: list[str]) -> Folder:
    folder = Folder.at(path)
    scan = folder.child("scan")
    write(scan, parts(), {"stage": "scan"})
    vectors = {
        removed_name(unit): pa.table(
            {"clip_id": pa.array(removed.get(f"u{int(unit)}", []), pa.string())}
        )
        for unit in UNITS
    }
    rows = {"folder": "scan", "sha256": scan.digest}
    write(folder, vectors, {"stage": "ingest", "rows": rows})
    return folder


def test_removed_clips_are_left_out_and_the_others_keep_their_order(tmp_path):
    tables = ClipTables.of(clips(tmp_path, u0=["c/1"]))
    assert tables.read("00000000").to_pydict() == {"clip_id": ["c/0", "c/2"], "seconds": [0.0, 2.0]}
    assert tables.read("00000000", ["seconds"]).to_pydict() == {"seconds": [0.0, 2.0]}
    assert tables.read("00000001", ["seconds"]).to_pydict() == {"seconds": [3.0]}
    assert tables.read_all(["clip_id"]).to_pydict() == {"clip_id": ["c/0", "c/2", "c/3"]}


def test_a_unit_of_which_all_clips_are_removed_is_empty_and_keeps_its_columns(tmp_path):
    table = ClipTables.of(clips(tmp_path, u1=["c/3"])).read("00000001", ["seconds", "clip_id"])
    assert (table.num_rows, table.column_names) == (0, ["seconds", "clip_id"])


def test_the_digest_of_a_unit_follows_its_rows_and_its_removals_alone(tmp_path):
    before = ClipTables.of(clips(tmp_path / "a")).digests()
    after = ClipTables.of(clips(tmp_path / "b", u0=["c/1"])).digests()
    assert list(before) == list(after) == list(UNITS)
    assert before["00000000"] != after["00000000"]
    assert before["00000001"] == after["00000001"]


def test_a_directory_of_an_earlier_version_holds_the_kept_rows_itself(tmp_path):
    folder = Folder.at(tmp_path)
    write(folder, parts(), {"stage": "ingest"})
    tables = ClipTables.of(folder)
    assert tables.read_all(["clip_id"])["clip_id"].to_pylist() == ["c/0", "c/1", "c/2", "c/3"]
    digests = folder.file_digests("parts/")
    assert tables.digests() == {unit: digests[part_name(unit)] for unit in UNITS}


def test_a_scan_that_has_changed_since_is_refused_with_the_remedy(tmp_path):
    folder = clips(tmp_path)
    write(folder.child("scan"), parts(), {"stage": "scan", "settings": "others"})
    with pytest.raises(IncompleteError, match=r"not the scan that .* run `audiocalm ingest` again"):
        ClipTables.of(folder)
    folder.child("scan").reopen()
    with pytest.raises(IncompleteError, match="not the scan that"):
        ClipTables.of(folder)


def test_only_a_complete_directory_of_ingest_with_clips_is_read(tmp_path):
    with pytest.raises(IncompleteError, match="run `audiocalm ingest`"):
        ClipTables.of(Folder.at(tmp_path))
    other = Folder.at(tmp_path / "other")
    write(other, {}, {"stage": "encode"})
    with pytest.raises(IncompleteError, match="is the output of `encode`"):
        ClipTables.of(other)
    empty = Folder.at(tmp_path / "empty")
    write(empty, {}, {"stage": "ingest"})
    with pytest.raises(IncompleteError, match="holds no Parquet files"):
        ClipTables.of(empty).read_all()
