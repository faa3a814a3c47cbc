"""The training loop against plain torch on the same batches, its wait for data, and the feed.

Loops are compared by the processor time of the whole process, prefetching included, which the other
programs of a shared machine change little; the wait for data is a share of the wall clock.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.text import ByteTokenizer
from pipeline.settings import load_settings
from pipeline.storage import Folder, table_bytes
from pipeline.training.feed import Feed, StepBatch
from pipeline.training.hardware import Hardware
from pipeline.training.plan import TypicalClip, plan_training, planned_config
from pipeline.training.settings import TrainSettings
from pipeline.training.setup import model_config
from pipeline.training.shards import TrainShards
from tests.bench.measure import Row, seconds
from tests.factories.cards import finish
from tests.factories.train_shards import mixed_clips, write_shards
from tests.factories.training import PlainTraining, process_group, small_settings, training

_NUM_CLIPS = 512
_CLIP_FRAMES = 250
"""Ten seconds at 25 frames a second."""
_STEPS = 2
_DOCUMENTS = 4
_INDEX_ROWS = (1_000_000, 4_000_000)
_ROWS_PER_FILE = 250_000
_SPEAKER_DIM = 256
_NEVER = 10**6
_RECIPE = "jobs/configs/train_1.7b_gpu.yaml"
_NUM_GPUS, _GPU, _MFU = 8, "H100", 0.4
"""What the feed must keep up with: the plan of the recipe on these."""


def rows(repeats: int) -> Iterator[Row]:
    """The loop with DeepSpeed against plain torch; the feed of one rank of eight."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_shards(folder / "shards", mixed_clips(_NUM_CLIPS, num_frames=_CLIP_FRAMES))
        with process_group(folder / "group"):
            yield from _loop_rows(folder, repeats)
        yield _feed_row(folder / "shards", repeats)
        for num_rows in _INDEX_ROWS:
            yield _index_row(folder / f"index-{num_rows}", num_rows)


def _loop_rows(folder: Path, repeats: int) -> Iterator[Row]:
    settings = small_settings(
        model={"preset": "tiny", "overrides": {}},
        feed={"documents_per_step": _DOCUMENTS, "pack_length": 2048},
        optim={"num_steps": _NEVER},
        checkpoint={"every": _NEVER},
        engine={"precision": "fp32", "zero_stage": 1},
    )
    worker = training(settings, folder / "run", folder / "shards")
    plain = PlainTraining(settings, folder / "shards")

    def step(batch: StepBatch) -> None:
        worker.step(batch)
        worker.saving.after_step(batch.step + 1)

    ours, theirs = _Steps(worker.feed, step), _Steps(plain.feed, plain.step)
    pairs = [(ours(), theirs()) for _ in range(repeats + 1)][1:]
    ratios = [plain_s / ours_s for ours_s, plain_s in pairs]
    yield Row(
        f"tiny, a training step of {_DOCUMENTS} clips of 10 s, float32",
        f"{statistics.median(ours_s for ours_s, _ in pairs) / _STEPS:.2f} s of processor time",
        "plain torch, the same batches",
        statistics.median(ratios),
        (min(ratios), max(ratios)),
    )
    share = ours.wait_s / ours.total_s
    ratio = ours.total_s / max(ours.wait_s, ours.total_s / 1000)  # at most a thousand
    yield Row(
        "waiting for data in these steps", f"{share:.1%}", "the whole time", ratio, (ratio, ratio)
    )


class _Steps:
    """A few more steps at every call, with the batches prefetched as in a run."""

    def __init__(self, feed: Feed, step: Callable[[StepBatch], object]) -> None:
        self._feed, self._step, self._taken = feed, step, 0
        self.wait_s = self.total_s = 0.0

    def __call__(self) -> float:
        """Take the steps; returns seconds of processor time."""
        began, began_cpu, first = time.perf_counter(), time.process_time(), self._taken
        self._taken += _STEPS
        with contextlib.closing(self._feed.batches(first, self._taken)) as batches:
            for place in range(_STEPS):
                asked = time.perf_counter()
                batch = next(batches)
                if place:  # nothing can be prefetched of the first
                    self.wait_s += time.perf_counter() - asked
                self._step(batch)
        self.total_s += time.perf_counter() - began
        return time.process_time() - began_cpu


def _feed_row(path: Path, repeats: int) -> Row:
    settings, shards = load_settings(TrainSettings, _RECIPE), TrainShards(Folder.at(path))
    plan = plan_training(
        settings,
        planned_config(settings.model, latent_dim=64),
        Hardware.of(_GPU, num_gpus=_NUM_GPUS),
        TypicalClip(duration_s=10, num_text=80, frame_rate=25, speech_share=1 / 3),
        _MFU,
    )
    needed = settings.feed.documents_per_step / _NUM_GPUS / plan.step_s
    tokenizer = ByteTokenizer()
    config = model_config(small_settings().model, shards, tokenizer)
    feed = Feed(shards, settings.feed, config, tokenizer, 0, rank=0, world_size=_NUM_GPUS)
    feed.batch(0)
    found = sorted(
        settings.feed.documents_per_step / _NUM_GPUS / seconds(lambda step=step: feed.batch(step))  # type: ignore[misc]
        for step in range(1, repeats + 1)
    )
    median = found[len(found) // 2]
    return Row(
        f"feed of one rank of {_NUM_GPUS}, one thread",
        f"{median:,.0f} documents/s",
        f"{needed:,.0f}, which {_GPU}s at {_MFU:.0%} MFU take of 1.7b",
        median / needed,
        (found[0] / needed, found[-1] / needed),
    )


def _index_row(path: Path, num_rows: int) -> Row:
    """Memory that the index of one rank keeps, beside the size of its speaker embeddings."""
    write_shards(path, mixed_clips(2))
    folder, table = Folder.at(path), pq.read_table(next((path / "index").iterdir()))
    facts = table.slice(0, 1).to_pylist()[0] | {"speaker_embedding": [0.5] * _SPEAKER_DIM}
    for begin in range(0, num_rows, _ROWS_PER_FILE):
        name = f"train-{begin // _ROWS_PER_FILE:05d}"
        rows = pa.Table.from_pylist([facts | {"shard": name}], schema=table.schema)
        rows = rows.take(np.zeros(_ROWS_PER_FILE, dtype=np.int64))
        keys = pa.array(f"clip-{number:09d}" for number in range(begin, begin + _ROWS_PER_FILE))
        rows = rows.set_column(rows.column_names.index("key"), "key", keys)
        folder.write_bytes(f"index/{name}.parquet", table_bytes(rows))
    finish(folder, folder.card("shard"))
    before = pa.total_allocated_bytes()
    shards = TrainShards(folder)
    kept = pa.total_allocated_bytes() - before
    embeddings = num_rows * _SPEAKER_DIM * 4
    ratio = embeddings / kept
    return Row(
        f"index of {len(shards):,} clips in memory",
        f"{kept / 2**20:,.0f} MiB, {kept / len(shards):.0f} bytes a clip",
        f"speaker embeddings of {_SPEAKER_DIM}, which are on the disk",
        ratio,
        (ratio, ratio),
    )
