"""What the driver of a stage holds must not grow with the number of clips."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from pipeline.data.corpora.discover import Discovery, FoundCorpus
from pipeline.data.corpora.listing import FileFact
from pipeline.data.describe import DescribeSettings, describe
from pipeline.data.plan import plan_units
from pipeline.data.schema import ClipRow
from pipeline.data.shard import ShardSettings, shard
from pipeline.data.stage import Resources
from pipeline.errors import PlannedOnlyError
from pipeline.storage import Folder

FEW, MANY = 100_000, 400_000
CLIPS_PER_PART = 64
DRY = Resources(workers=0, dry_run=True)


def inputs_of(root: Path, num_clips: int) -> tuple[Folder, Folder, Folder]:
    """Complete directories whose cards name as many parts as that many clips make; no rows."""
    parts = [f"{number:05d}" for number in range(num_clips // CLIPS_PER_PART)]
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


def test_units_of_ingest_do_not_hold_the_rows(tmp_path):
    def held(num_clips: int) -> int:
        found = FoundCorpus("c", "plain", "/c")
        found.clips = [
            (
                ClipRow(
                    clip_id=f"c/{number}",
                    corpus="c",
                    uri=f"/c/{number}.wav",
                    modality="speech",
                    transcript="some words that somebody says in a clip " * 4,
                ),
                FileFact(size_bytes=number, mtime_ns=0),
            )
            for number in range(num_clips)
        ]
        folder = Folder.at(tmp_path / str(num_clips))
        units: list = []
        tracemalloc.start()
        try:
            units += plan_units(Discovery([found], {}), folder, CLIPS_PER_PART)
            gc.collect()
            return tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()

    held(64)  # what is imported and cached at the first call
    few, many = held(512), held(2048)
    assert (many - few) / (2048 - 512) < 64, "bytes a clip"
