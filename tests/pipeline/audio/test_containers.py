from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.audio.containers import read_member, split_member, table_batches
from pipeline.audio.files import AudioError, read_audio
from pipeline.storage import Folder
from tests.factories.corpora import write_tone

CELLS = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write_table(path, num_rows, batch_rows=10):
    """A table of audio cells as the `datasets` package writes it; row 3 is empty."""
    rows = [{"bytes": b"%d" % row, "path": None} for row in range(num_rows)]
    rows[3]["bytes"] = None
    table = pa.table({"audio": pa.array(rows, CELLS), "raw": [b"r%d" % n for n in range(num_rows)]})
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=batch_rows)
    else:
        is_stream = path.stem == "stream"
        new_writer = pa.ipc.new_stream if is_stream else pa.ipc.new_file
        with new_writer(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=batch_rows)
    return str(path)


@pytest.fixture(params=["stream.arrow", "file.arrow", "t.parquet"])
def table(request, tmp_path):
    return write_table(tmp_path / request.param, 300)


@pytest.mark.parametrize("order", [range(4, 300), range(299, 3, -1), (4, 290, 5, 160, 299, 158)])
def test_cells_are_the_same_in_any_order(table, order):
    assert [read_member(table, f"audio/{row}") for row in order] == [b"%d" % row for row in order]


def test_cells_of_plain_bytes(table):
    assert read_member(table, "raw/17") == b"r17"


def test_threads_read_their_own_rows(table):
    rows = list(range(4, 200))
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda row: read_member(table, f"audio/{row}"), rows))
    assert found == [b"%d" % row for row in rows]


@pytest.mark.parametrize(
    "member", ["audio/3", "audio/300", "audio/x", "audio", "none/1", "/1", "audio/-1"]
)
def test_cells_that_are_not_there(table, member):
    with pytest.raises(FileNotFoundError):
        read_member(table, member)


def test_the_first_batch_holds_the_row_asked_for(table):
    folder, _, name = table.rpartition("/")
    first, batch = next(table_batches(Folder.at(folder), name, first_row=157))
    assert first <= 157 < first + batch.num_rows
    assert first > 100


@pytest.mark.parametrize("name", ["x.arrow", "x.parquet", "x.tar"])
def test_a_damaged_file_is_unreadable(tmp_path, name):
    (tmp_path / name).write_bytes(b"no table, no archive" * 100)
    with pytest.raises(AudioError) as caught:
        read_audio(f"{tmp_path}/{name}#audio/0")
    assert caught.value.reason == "unreadable"


def test_tables_on_another_file_system(tmp_path):
    memory = fsspec.filesystem("memory")
    path = write_table(tmp_path / "stream.arrow", 20)
    memory.pipe({"/bucket/a b.arrow": Path(path).read_bytes()})
    assert read_member("memory://bucket/a%20b.arrow", "audio/12") == b"12"


def test_audio_of_a_cell_is_decoded(tmp_path):
    payload = write_tone(tmp_path / "x.wav").read_bytes()
    table = pa.table({"audio": pa.array([{"bytes": payload, "path": "x.wav"}], CELLS)})
    pq.write_table(table, tmp_path / "t.parquet")
    assert read_audio(f"{tmp_path}/t.parquet#audio/0").waveform.shape == (1, 3_200)


def test_addresses_inside_files():
    assert split_member("/a/b.tar#c/d.mp3") == ("/a/b.tar", "c/d.mp3")
    assert split_member("s3://a/b.parquet#audio/1") == ("s3://a/b.parquet", "audio/1")
    assert split_member("/a/b#c.wav") is None
