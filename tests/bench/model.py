"""Sampler and training step of the tiny preset with random weights."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from einops import repeat
from torch import Tensor

from model.attention import PackedAttention
from model.audiocalm import AudioCALM
from model.config import preset
from model.flow import time_grid
from model.generation import GenerationRequest, Sampler, SamplingOptions
from model.sequence import document_layout
from model.timebase import Timebase
from tests.bench.measure import Row, compare

NUM_BLOCKS = 20
FLOW_STEPS = 16
PREFIX = tuple(range(60))
BATCH = 8


def rows(repeats: int) -> Iterator[Row]:
    """Cache against recomputation, batch against one by one, speech against sound."""
    torch.manual_seed(0)
    config = preset("tiny")
    model = AudioCALM(config).eval()
    frames = NUM_BLOCKS * config.frames_per_block
    audio_s = Timebase(16_000, 640).frames_duration_s(frames)

    def real_time_factor(seconds: float) -> str:
        return f"RTF {seconds / audio_s:.3f}"

    sound = request(frames)
    yield compare(
        f"tiny, {audio_s:.1f} s, {FLOW_STEPS} steps with guidance, cache and fused write",
        lambda: list(Sampler(model).generate(sound)),
        "the same flow, whole history recomputed at every evaluation",
        lambda: recompute(model, NUM_BLOCKS),
        max(1, repeats // 2),
        real_time_factor,
    )
    batch = [request(frames, seed) for seed in range(BATCH)]
    yield compare(
        f"tiny, {BATCH} requests in one batch",
        lambda: together(model, batch),
        "the same requests one after the other",
        lambda: [list(Sampler(model).generate(item)) for item in batch],
        max(1, repeats // 2),
        lambda seconds: f"{BATCH * audio_s / seconds:.1f} audio-seconds per second",
    )
    speech = request(frames, uses_expert=True)
    yield compare(
        "tiny, sound: the speech expert is not called",
        lambda: list(Sampler(model).generate(sound)),
        "speech: the expert runs on every token",
        lambda: list(Sampler(model).generate(speech)),
        repeats,
        real_time_factor,
    )
    first = request(config.frames_per_block)
    yield compare(
        "tiny, first block of a request with prefill",
        lambda: next(Sampler(model).generate(first)),
        "first two blocks",
        lambda: list(Sampler(model).generate(request(2 * config.frames_per_block))),
        repeats,
    )


def request(frames: int, seed: int = 0, *, uses_expert: bool = False) -> GenerationRequest:
    """A request of exact length."""
    return GenerationRequest(
        token_ids=PREFIX,
        null_ids=PREFIX[:2],
        uses_expert=uses_expert,
        seed=seed,
        max_frames=frames,
        exact_frames=frames,
        speaker=None,
        prompt_latents=None,
        options=SamplingOptions(num_flow_steps=FLOW_STEPS, guidance_scale=2.0),
    )


def together(model: AudioCALM, requests: list[GenerationRequest]) -> None:
    """Step all requests until all are done."""
    sampler = Sampler(model)
    states = [sampler.open(item) for item in requests]
    while active := [state for state in states if not state.is_done]:
        sampler.step(active)


@torch.no_grad()
def recompute(model: AudioCALM, num_blocks: int) -> Tensor:
    """The sampler's arithmetic without a cache: prefix and all clean blocks run every time."""
    config = model.config
    frames, width = config.frames_per_block, config.latent_dim
    clean = torch.zeros(0, width)
    prefix = model.embed_prefix(torch.tensor([PREFIX]), None)
    for block in range(num_blocks):
        latents = torch.randn(frames, width)
        layout = document_layout(len(PREFIX), (block + 1) * frames, 0, frames)
        position = repeat(layout.position, "s -> 2 s")
        index = torch.where(layout.segment == 0, torch.zeros_like(layout.block), layout.block + 1)
        visible = index[:, None] >= index[None, :]
        prefix_rows = layout.segment == 0
        causal = torch.ones(len(index), len(index), dtype=torch.bool).tril()
        mask = torch.where(prefix_rows[:, None] & prefix_rows[None, :], causal, visible)
        attention = PackedAttention(repeat(mask, "q k -> 2 q k"))
        history = torch.cat([prefix, model.embed_clean(clean)[None]], 1)
        grid = time_grid("sway", FLOW_STEPS)
        for start, end in itertools.pairwise(grid):
            noisy = model.embed_noisy(latents[None], model.embed_time(start.expand(1, frames)))
            rows_ = repeat(torch.cat([history, noisy], 1), "1 s d -> 2 s d")
            hidden = model.backbone(rows_, position, attention, None)[:, -frames:]
            velocity = model.flow_head(hidden, start.expand(2, frames))
            latents = latents + (end - start) * (2 * velocity[0] - velocity[1])
        clean = torch.cat([clean, latents])
    return clean
