"""Descriptions of many clips: rate, memory, and variety, against the same functions in a loop."""

from __future__ import annotations

import itertools
import json
import random
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow.parquet as pq

from pipeline.data.describe import DescribeSettings, describe
from pipeline.data.descriptions.facts import facts_of
from pipeline.data.descriptions.templates import describe_clip
from pipeline.storage import Folder
from tests.bench.measure import Row, seconds
from tests.factories.clip_tables import random_clip, write_clip_tables

NUM_CLIPS = 100_000
CLIPS_PER_PART = 500
"""Clips of one unit; `ingest` makes units of 128 to 512."""
_LOOP_PARTS = 50
"""Parts that the loop reads, once before and once after the stage."""
_SAMPLE_S = 0.2


def rows(repeats: int) -> Iterator[Row]:
    """The stage over `NUM_CLIPS` clips in this process, and how its memory went.

    The loop it is compared with reads the same tables and composes the same texts, and writes
    nothing. One pass of the stage takes minutes, so `repeats` is not used.
    """
    del repeats
    here = DescribeSettings.model_validate({"resources": {"workers": 0}})
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        tables = write_clip_tables(root, _parts(NUM_CLIPS))
        first_s = seconds(lambda: _loop(root, here))
        with _MemorySamples() as memory:
            ours_s = seconds(lambda: describe(*tables, Folder.at(root / "out"), here))
        last_s = seconds(lambda: _loop(root, here))
        again_s = seconds(lambda: describe(*tables, Folder.at(root / "out"), here))
        variety = Folder.at(root / "out").card()["variety"]["all"]
    scale = NUM_CLIPS / (_LOOP_PARTS * CLIPS_PER_PART)
    ratios = sorted(scale * loop_s / ours_s for loop_s in (first_s, last_s))
    quarter, peak = memory.peaks_mib()
    yield Row(
        f"describe, {NUM_CLIPS:,} clips, {here.texts_per_clip} texts each, one process",
        f"{NUM_CLIPS / ours_s:.0f} clips/s; {quarter:.0f} MiB at most in the first quarter, "
        f"{peak:.0f} in all",
        f"the same functions in a plain loop over {_LOOP_PARTS * CLIPS_PER_PART:,}, no files",
        sum(ratios) / 2,
        (ratios[0], ratios[1]),
    )
    ratio = ours_s / again_s
    against = "describing them"
    yield Row("the same again, nothing to do", f"{again_s:.2f} s", against, ratio, (ratio, ratio))
    print(f"variety: {json.dumps(variety)}")


class _MemorySamples:
    """Resident memory of this process, sampled in a thread."""

    def __init__(self) -> None:
        self._samples: list[int] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> _MemorySamples:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._is_over.set()
        self._thread.join()

    def peaks_mib(self) -> tuple[float, float]:
        """Of the first quarter of the time, and of all of it."""
        quarter = self._samples[: max(1, len(self._samples) // 4)]
        return max(quarter) / 2**20, max(self._samples) / 2**20

    def _run(self) -> None:
        process = psutil.Process()
        while not self._is_over.wait(_SAMPLE_S):
            self._samples.append(process.memory_info().rss)


def _parts(num_clips: int) -> Iterator[list]:
    rng = random.Random(0)
    numbers = iter(range(num_clips))
    while part := [random_clip(n, rng) for n in itertools.islice(numbers, CLIPS_PER_PART)]:
        yield part


def _loop(root: Path, settings: DescribeSettings) -> None:
    for path in sorted((root / "clips" / "parts").iterdir())[:_LOOP_PARTS]:
        latents = root / "latents" / "parts" / path.name.replace("part-", "latents-")
        measured = pq.read_table(latents, columns=["clip_id", "attributes"]).to_pylist()
        for clip, row in zip(pq.read_table(path).to_pylist(), measured, strict=True):
            facts = facts_of(clip, json.loads(row["attributes"]), max_words=settings.max_words)
            describe_clip(
                facts,
                seed=clip["clip_id"],
                count=settings.texts_per_clip,
                max_words=settings.max_words,
            )
