"""The training loop against plain torch on the same batches, its wait for data, and the feed."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from model.text import ByteTokenizer
from pipeline.settings import load_settings
from pipeline.storage import Folder
from pipeline.training.feed import Feed, StepBatch
from pipeline.training.hardware import Hardware
from pipeline.training.plan import TypicalClip, plan_training, planned_config
from pipeline.training.settings import TrainSettings
from pipeline.training.setup import model_config
from pipeline.training.shards import TrainShards
from tests.bench.measure import Row, compare, seconds
from tests.factories.train_shards import mixed_clips, write_shards
from tests.factories.training import PlainTraining, process_group, small_settings, training

_NUM_CLIPS = 2048
_CLIP_FRAMES = 250
"""Ten seconds at 25 frames a second."""
_STEPS = 4
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


def _loop_rows(folder: Path, repeats: int) -> Iterator[Row]:
    settings = small_settings(
        model={"preset": "tiny", "overrides": {}},
        feed={"documents_per_step": 8, "pack_length": 2048},
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
    yield compare(
        f"tiny, {_STEPS} training steps of 8 clips of 10 s, float32",
        ours,
        "plain torch, the same batches",
        theirs,
        repeats,
        lambda took: f"{took / _STEPS:.2f} s a step",
    )
    share = ours.wait_s / ours.total_s
    ratio = ours.total_s / max(ours.wait_s, 1e-9)
    yield Row(
        "waiting for data in these steps", f"{share:.1%}", "the whole time", ratio, (ratio, ratio)
    )


class _Steps:
    """A few more steps at every call, with the batches prefetched as in a run."""

    def __init__(self, feed: Feed, step: Callable[[StepBatch], object]) -> None:
        self._feed, self._step, self._taken = feed, step, 0
        self.wait_s = self.total_s = 0.0

    def __call__(self) -> None:
        began, first = time.perf_counter(), self._taken
        self._taken += _STEPS
        with contextlib.closing(self._feed.batches(first, self._taken)) as batches:
            for place in range(_STEPS):
                asked = time.perf_counter()
                batch = next(batches)
                if place:  # nothing can be prefetched of the first
                    self.wait_s += time.perf_counter() - asked
                self._step(batch)
        self.total_s += time.perf_counter() - began


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
