"""What the driver of a stage holds must not grow with the number of clips."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest

from pipeline.clip_tables import part_name
from pipeline.data.corpora.file_table import FileFact
from pipeline.data.corpora.found import Discovery, FoundCorpus, FoundItem, write_parts
from pipeline.data.describe import DescribeSettings, describe
from pipeline.data.plan import plan_units, rows_of
from pipeline.data.schema import CLIPS, ClipRow
from pipeline.data.screening import refusals
from pipeline.data.screening.duplicates import Recordings
from pipeline.data.screening.fingerprints import to_bytes
from pipeline.data.screening.refusals import RefusalSettings, find_removals
from pipeline.data.shard import ShardSettings, shard
from pipeline.data.units import commit_log
from pipeline.data.units.stage import Resources, Unit
from pipeline.errors import PlannedOnlyError
from pipeline.storage import Folder, table_bytes

FEW, MANY = 100_000, 400_000
CLIPS_PER_PART = 64
DRY = Resources(workers=0, dry_run=True)


def inputs_of(root: Path, num_clips: int) -> tuple[Folder, Folder, Folder]:
    """Complete directories whose cards name as many parts as that many clips make; no rows."""
    parts = [f"{number:08d}" for number in range(num_clips // CLIPS_PER_PART)]
    clips, latents, descriptions = (
        Folder.at(root / name) for name in ("clips", "latents", "descriptions")
    )
    rows = {f"parts/part-{part}.parquet": "0" * 64 for part in parts}
    clips.finish({"stage": "ingest", "files": rows})
    tars = {f"shards/latents-{part}.tar": "1" * 64 for part in parts}
    index = {f"parts/latents-{part}.parquet": "2" * 64 for part in parts}
    inputs = {"clips": clips.digest}
    codec = {"sample_rate": 16_000}
    latents.finish({"stage": "encode", "files": tars | index, "inputs": inputs, "codec": codec})
    inputs |= {"latents": latents.digest}
    descriptions.finish({"stage": "describe", "files": rows, "inputs": inputs})
    return clips, latents, descriptions


def peak_bytes(act: Callable[[], object]) -> int:
    """Most memory that Python and Arrow held at once."""
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1] + pa.total_allocated_bytes() - before
    finally:
        tracemalloc.stop()


def plan_of(stage: str, root: Path, num_clips: int) -> int:
    clips, latents, descriptions = inputs_of(root / f"{stage}-{num_clips}", num_clips)
    output = Folder.at(root / f"{stage}-{num_clips}" / "output")

    def planned() -> None:
        if stage == "describe":
            describe(clips, latents, output, DescribeSettings(resources=DRY))
        else:
            shard(clips, latents, descriptions, output, ShardSettings(resources=DRY))

    def act() -> None:
        with pytest.raises(PlannedOnlyError):
            planned()

    return peak_bytes(act)


@pytest.mark.parametrize("stage", ["describe", "shard"])
def test_four_times_the_clips_take_a_tenth_more_memory_at_most(tmp_path, stage):
    base = psutil.Process().memory_info().rss
    few, many = (plan_of(stage, tmp_path, count) for count in (FEW, MANY))
    assert base + many <= 1.1 * (base + few), f"{few} and {many} bytes beside {base}"


def discovered(store: Folder, num_clips: int) -> Discovery:
    """A discovery of clips that are not there, as reading a corpus leaves it."""
    row = ClipRow(clip_id="{0}", corpus="c", uri="{1}", modality="sound", captions=("A dog.",))
    item = FoundItem.of_clip("", row, FileFact(10_000, 0)).item
    before, key, between, uri, after = re.split(r"(\{[01]\})", item)
    assert (key, uri) == ("{0}", "{1}")

    def items() -> Iterator[FoundItem]:
        for number in range(num_clips):
            name, uri = f"c/{number:07d}", f"/corpora/{number // 10:06d}.wav"
            text = f"{before}{name}{between}{uri}{after}"
            yield FoundItem(f"clip {name}", uri, 10_000, text)

    parts = write_parts(store, items())
    return Discovery(
        store, [FoundCorpus("c", "table", "/corpora", "0" * 64, num_clips, 0, parts, {})], {}
    )


PLANNING = """
import os, resource, sys
os.fsync = lambda file: None  # disks are not waited for, which changes no memory
from pipeline.data.plan import plan_units
from pipeline.data.scan import scan_units
from pipeline.data.screening.checks import CheckSettings
from pipeline.data.segments import SegmentSettings
from pipeline.data.units.stage import Resources
from pipeline.errors import PlannedOnlyError
from pipeline.storage import Folder
from tests.pipeline.data.test_driver_memory import discovered

work = Folder.at(sys.argv[1])
units = plan_units(discovered(work.child("discovery"), int(sys.argv[2])), work)
assert len(units) > 1_000
try:
    dry = Resources(workers=0, dry_run=True)
    scan_units(work.child("scan"), {}, units, CheckSettings(), SegmentSettings(), dry)
except PlannedOnlyError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
"""Divides clips into units, compares them with what is done, and tells its peak memory in KiB."""


@pytest.mark.nightly
def test_four_times_the_rows_are_planned_in_a_tenth_more_memory_at_most(tmp_path):
    def peak(num_clips: int) -> int:
        run = [sys.executable, "-c", PLANNING, str(tmp_path / str(num_clips)), str(num_clips)]
        return int(subprocess.run(run, check=True, capture_output=True, text=True).stdout)

    few, many = peak(FEW), peak(MANY)
    assert many <= 1.1 * few, f"{few} and {many} KiB"


def test_reading_the_commit_log_holds_a_segment_and_not_all_records(tmp_path, monkeypatch):
    monkeypatch.setattr(commit_log, "SEGMENT_RECORDS", 50)
    folder = Folder.at(tmp_path)
    for number in range(1_000):
        record = {"unit": f"{number:08d}", "files": {f"parts/{number:08d}": "0" * 64}}
        folder.write_json(f"{commit_log.COMMITS}/{number:08d}.json", record)
    log = commit_log.CommitLog(folder)
    log.compact()
    assert len(list(log)) == 1_000
    assert peak_bytes(lambda: sum(1 for _ in log)) < peak_bytes(lambda: list(log)) / 3


def write_rows(root: Path, num_clips: int) -> Path:
    """A corpus of spans that are not there, but for their names, in JSON lines."""
    root.mkdir(parents=True)
    for number in range(0, num_clips, 10):
        (root / f"{number:06d}.wav").write_bytes(b"x")
    with (root / "rows.jsonl").open("w") as lines:
        for number in range(num_clips):
            start = number % 10
            row = {"audio": f"{number - start:06d}.wav", "start_s": start, "end_s": start + 1}
            row |= {"caption": f"Dog {number} barks.", "modality": "sound"}
            lines.write(json.dumps(row) + "\n")
    return root


def scanned(folder: Folder, units: Sequence[Unit]) -> None:
    """Parts of a scan as decoding would have left them."""
    for unit in units:
        rows = []
        for clip in rows_of(unit)["clips"]:
            seed = zlib.crc32(clip["clip_id"].encode())
            words = np.random.default_rng(seed).integers(1, 2**32, 100, dtype=np.uint32)
            measured = {"duration_s": 7.0, "sample_rate": 8_000, "num_channels": 1}
            names = dict.fromkeys(("content_sha256", "fingerprint"), f"{seed:064d}")
            rows.append(clip | measured | names | {"acoustic": to_bytes(words)})
        folder.write_bytes(part_name(unit.name), table_bytes(pa.Table.from_pylist(rows, CLIPS)))


def test_deduplication_holds_a_few_bytes_a_clip(tmp_path, monkeypatch):
    """A tenth of 160 MB over the 300,000 clips between 100,000 and 400,000 are 53 bytes a clip."""
    monkeypatch.setattr(refusals, "Recordings", partial(Recordings, partition_clips=2**9))

    def peak(num_clips: int) -> int:
        work = Folder.at(tmp_path / str(num_clips))
        units = plan_units(discovered(work.child("discovery"), num_clips), work)
        scanned(work, units)
        names = [unit.name for unit in units]
        return peak_bytes(lambda: find_removals(work, names, [], RefusalSettings()))

    peak(64)  # what is imported and cached at the first call
    few, many = peak(512), peak(2_048)
    assert (many - few) / (2_048 - 512) < 53, f"{few} and {many} bytes"


@pytest.mark.nightly
def test_ingest_of_four_times_the_clips_takes_a_tenth_more_memory_at_most(tmp_path):
    def peak(num_clips: int) -> int:
        root = write_rows(tmp_path / str(num_clips), num_clips)
        code = (
            "import resource, sys\n"
            "from pipeline.data.plan import plan_units\n"
            "from pipeline.storage import Folder\n"
            "from tests.factories.corpora import found_in\n"
            "work = Folder.at(sys.argv[1] + '.work')\n"
            "plan_units(found_in(work.child('discovery'), sys.argv[1]), work)\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
        )
        run = [sys.executable, "-c", code, str(root)]
        return int(subprocess.run(run, check=True, capture_output=True, text=True).stdout)

    few, many = peak(FEW), peak(MANY)
    assert many <= 1.1 * few, f"{few} and {many} KiB"
