"""The sampler with and without captured passes: real-time factor, first block, a full batch."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator

import torch

from model.backbone import BackboneLike
from model.fast.cuda_graphs import GraphBackbone
from model.inference.cache import CacheSize, KVCache
from model.inference.sampler import Sampler
from tests.bench.measure import seconds
from tests.bench.model_sampling import together
from tests.bench.subject import FLOW_STEPS, PREFIX, Subject, request
from tests.gpu_check.rows import Plan, Row
from tests.gpu_check.training import random_model

_REPEATS = 3
_LATENT_TOLERANCE = 0.05
"""Largest difference of latents with and without graphs, in units of their deviation: bf16 sums of
another order, through several blocks."""


def sampling_rows(plan: Plan) -> Iterator[Row]:
    """Every measurement of the sampler, first without graphs."""
    name, config = plan.sampler, plan.config(plan.sampler)
    subject = Subject(name)
    model = random_model(config, plan.device).to(subject.dtype).eval()
    frames = subject.timebase.frames_in(plan.audio_s)
    frames -= frames % config.frames_per_block
    size = CacheSize(2 * plan.batch, len(PREFIX) + 2 * frames, has_few_shapes=True)
    found = []
    for has_graphs in (False, True):
        cache = KVCache(config, plan.device, subject.dtype, size)
        part = f"sampler {name}, {'graphs' if has_graphs else 'no graphs'}, {FLOW_STEPS} steps"
        backbone: BackboneLike = model.backbone
        if has_graphs:
            backbone = GraphBackbone(model.backbone, cache, _repeat if plan.is_rehearsal else None)
            warm_up_s = seconds(backbone.warm_up)
            shapes = f"{warm_up_s:.1f} s for {backbone.num_captured} shapes"
            repeated = "not run: repeated in place of captured on a CPU"
            yield Row(part, "capture", shapes, "", repeated if plan.is_rehearsal else "measured")
        sampler = Sampler(model, backbone, cache)
        yield from _timed(part, subject, sampler, frames, plan.batch)
        found.append(_latents(sampler, frames))
    gap = float((found[0] - found[1]).abs().max() / found[0].std())
    yield Row(
        f"sampler {name}",
        "latents with graphs against without",
        f"at most {gap:.1e} standard deviations apart",
        f"at most {_LATENT_TOLERANCE:g}",
        "ok" if gap <= _LATENT_TOLERANCE else "FAILED",
    )


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


def _latents(sampler: Sampler, frames: int) -> torch.Tensor:
    blocks = sampler.generate(request(frames, seed=1))
    return torch.cat([block.latents[: block.num_valid_frames] for block in blocks]).float()


def _median(run: Callable[[], object]) -> float:
    run()
    return statistics.median(seconds(run) for _ in range(_REPEATS))


def _repeat(work: Callable[[], None]) -> Callable[[], None]:
    """In place of a capture: runs the work once, then whenever asked."""
    work()
    return work
