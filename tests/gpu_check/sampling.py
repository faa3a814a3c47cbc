"""The sampler: real-time factor, first block, a full batch."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator

from model.inference.cache import CacheSize, KVCache
from model.inference.sampler import Sampler
from tests.bench.measure import seconds
from tests.bench.model_sampling import together
from tests.bench.subject import FLOW_STEPS, PREFIX, Subject, request
from tests.gpu_check.rows import Plan, Row
from tests.gpu_check.training import random_model

_REPEATS = 3


def sampling_rows(plan: Plan) -> Iterator[Row]:
    """Every measurement of the sampler."""
    name, config = plan.sampler, plan.config(plan.sampler)
    subject = Subject(name)
    model = random_model(config, plan.device).to(subject.dtype).eval()
    frames = subject.timebase.frames_in(plan.audio_s)
    frames -= frames % config.frames_per_block
    size = CacheSize(2 * plan.batch, len(PREFIX) + 2 * frames)
    sampler = Sampler(model, cache=KVCache(config, plan.device, subject.dtype, size))
    part = f"sampler {name}, {FLOW_STEPS} steps"
    yield from _timed(part, subject, sampler, frames, plan.batch)


def _timed(part: str, subject: Subject, sampler: Sampler, frames: int, batch: int) -> Iterator[Row]:
    block = sampler.model.config.frames_per_block
    audio_s = subject.timebase.frames_duration_s(frames)
    alone_s = _median(lambda: together(sampler, [request(frames)]))
    yield Row(part, "one request", f"RTF {alone_s / audio_s:.3f}, without the codec")
    first_s = _median(lambda: together(sampler, [request(block)]))
    yield Row(part, "first block, prefill included", f"{1e3 * first_s:.1f} ms, without the codec")
    asked = [request(frames, seed) for seed in range(batch)]
    all_s = _median(lambda: together(sampler, asked))
    rate = f"{batch * audio_s / all_s:.1f} audio-seconds per second, RTF {all_s / audio_s:.3f}"
    yield Row(part, f"{batch} requests together", rate)


def _median(run: Callable[[], object]) -> float:
    run()
    return statistics.median(seconds(run) for _ in range(_REPEATS))
